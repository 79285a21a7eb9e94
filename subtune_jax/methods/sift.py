"""SIFT: of every array the elements with the largest gradient of the first batch.

Source: Song et al., "Sparse is Enough in Fine-tuning Pre-trained Large Language
Models", arXiv:2312.11875, and its released code. The paper takes of each matrix the
elements with the largest absolute gradient, found as training begins; its README
speaks of the first few batches, its code keeps the indices of the first one. For GLUE
the scripts take 0.8 % of the queries, keys, values and attention outputs, kernels and
biases, and train the classifier whole. Here that is
`among=r".*/attn/(query|key|value|out)/(kernel|bias)"` of a ViT; the default is all
kernels, so that networks without attention have one too.

The code takes one element more than its share rounded down, we round the share to the
nearest. It throws the first gradient away once it has chosen by it, and so do we.
"""

from typing import Any

TINY: dict[str, Any] = {}
PRESET = {"name": "sam", "fraction": 0.008, "batches": 1, "among": r".*kernel"}
