"""NeuroAda: of every neuron the K inputs with the largest weights.

Needs no data. Source: "NeuroAda", arXiv:2510.18940, and its released code
(FightingFighting/NeuroAda, `utils/select_para.py`): of each row of the named weights
the K of largest magnitude, K=1 or 20 in its scripts, no biases unless asked for. It
trains differences beside the frozen weights, which is the same function with a state of
the size of what is selected, as here. With K above the fan-in it trains the whole row;
we refuse that.

The mask is that of `magnitude`, with the paper's defaults: `count` is its K.
"""

from typing import Any

TINY: dict[str, Any] = {}
PRESET = {"name": "magnitude", "scope": "neuron", "count": 1}
