"""One run: `run.py` reads from top to bottom.

Set up (`setup`, `settings`), select (`evidence`), build (`program`), fit, evaluate
(`prediction`), write (`results`, `checkpoint`, `workdir`). A step is fused (`step`,
`loss`) or by blocks (`block_step`, `block_programs`, `block_update`), over one state;
the `activation_cache` holds what enters it. Called by `commands/`, `subtuning/` and
`study/`.
"""
