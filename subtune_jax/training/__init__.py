"""One run: `run.py` reads from top to bottom.

Set up (`setup`, `settings`), select (`evidence`), build (`assembly`, `step`, `loss`),
fit, evaluate, write (`results`, `checkpoint`, `workdir`). Called by
`commands/`, `subtuning/` and `study/`.
"""
