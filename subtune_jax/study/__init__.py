"""Many runs: comparisons, seeds, benchmarks.

`comparison` runs a `grid` and makes `summaries`; `seed_runs` trains N seeds by one
program; `benchmark` runs the files of `benches/`, timed by `timing`.
"""
