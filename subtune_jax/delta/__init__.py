"""Deltas: what fine-tuning changed, bit for bit, and nothing else.

`save`, `load`, `info`, `fingerprint` (public as `st.delta`); `algebra` compares and
merges deltas; `store`, `folder`, `leaves` and `changed` are the file format.
"""

from subtune_jax.delta.leaves import flatten
from subtune_jax.delta.store import fingerprint, info, load, save

__all__ = ["fingerprint", "flatten", "info", "load", "save"]
