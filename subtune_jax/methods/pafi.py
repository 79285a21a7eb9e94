"""PaFI: of the whole network the elements with the smallest weights.

Needs no data, and no task: one mask serves them all. Source: Liao, Meng and Monz,
"Parameter-Efficient Fine-Tuning without Introducing New Latency", arXiv:2305.16742:
pretrained elements of the smallest magnitude, all arrays together. We read its
abstract and a third party's code. The share is ours, half a percent, as in FISH and
SAM. Like every method here it chooses among kernels unless `among` says otherwise.
"""

from typing import Any

TINY: dict[str, Any] = {}
PRESET = {
    "name": "magnitude",
    "scope": "network",
    "fraction": 0.005,
    "largest": False,
}
