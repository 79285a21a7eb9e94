"""Many runs: comparisons, seeds, benchmarks; called by the commands alone.

`comparison` runs a `grid` and sums it up in `summaries`; `seed_runs` trains N seeds by
one program; `benchmark` runs the files of `benches/`, which use `timing`, `step_runs`.
`study_file` keeps a finished study as one JSON, packed by `packing`; `study_tables` and
`study_pictures` read it.
"""
