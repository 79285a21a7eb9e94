"""One run: `run.py` reads from top to bottom.

Set up (`setup`, `settings`), select (`evidence`), build (`assembly`, `step`, `loss`),
fit, evaluate, write (`results`, `checkpoint`, `metrics_log`, `workdir`). Called by
`commands/`, `subtuning/` and `study/`.
"""
