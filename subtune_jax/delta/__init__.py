"""Deltas: what fine-tuning changed, bit for bit, and nothing else.

`save`, `load`, `info`, `fingerprint` (public as `st.delta`). `store` says what is saved
and what is refused; `leaves` finds the elements that differ and codes their positions;
`folder` is the format on disk; `restore` puts changed leaves where the base's are.
`algebra` compares, merges and exports deltas; `tensor_file` is one file of arrays.
"""

from subtune_jax.delta.leaves import fingerprint, flatten
from subtune_jax.delta.store import info, load, save

__all__ = ["fingerprint", "flatten", "info", "load", "save"]
