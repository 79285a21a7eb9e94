"""SubTuning: fine-tuning profiles and greedy search over blocks (arXiv:2302.06354).

Two jobs, called by `commands/` and `study/`: `block_profile`, of `candidates`, and
`block_search`, by the rules of `greedy` with its `cost_model`, which ends with
`baselines` and their `final_training`. Both ask the `evaluator`, which remembers in the
`journal`; it runs `trials` on `folds`: the `trainer` makes each a program of
`training`, by blocks where it can be.
"""
