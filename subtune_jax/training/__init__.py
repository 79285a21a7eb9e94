"""One run: `run.py` reads from top to bottom.

Set up (`setup`, `settings`), select (`evidence`), build (`program`, `step`, `loss`),
fit, evaluate, write (`results`, `checkpoint`, `workdir`). Called by
`commands/`, `subtuning/` and `study/`.
"""
