"""SubTuning: fine-tuning profiles and greedy search over blocks (arXiv:2302.06354).

`block_profile` and `block_search` are the two jobs; `trials` values candidates with
`block_trainer` on the `activation_cache`; `evaluator` keeps what is on record in the
`journal`; `baselines` and `final_training` end a search.
"""
