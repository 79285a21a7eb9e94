"""Pictures and pages: of a run, a profile, a search, a comparison, a mask.

`write` makes the report of a run; each picture is a file, `themes` and `marks` are
what they share. Called by `training/`, `subtuning/` and `study/` with plain results.
"""

from subtune_jax.report.run_report import write

__all__ = ["write"]
