r"""What text networks, padding, moving masks and seeds cost: MiniLM on film reviews.

    subtune bench --config=configs/bench_text.py --workdir=runs/bench_text \
        --only=sparse,pytorch,buckets,moving,seeds
    subtune bench --config=configs/bench_text.py:real --workdir=runs/bench_text_real \
        --only=pytorch,buckets

Measured on two idle cores (`results/bench/text*.json`), medians of 5 to 61 turns: a
full step of MiniLM takes 0.91 of PyTorch's, with texts of 64 tokens exactly (`:real
--config.backbone.lengths=()`) 0.99. One input of every neuron takes 0.64 of the full
step and 0.64 of PyTorch's masked way (0.60 to 0.68 in short runs; 0.69 at 64 tokens;
0.65 was the aim, and the dense products alone take 0.60). Cut batches take 0.34 of what
padded ones do, 0.37 with the real tokenizer. A step of DPS takes 1.01 of a plain masked
one; choosing adds 1 to 4 % to the run. Five seeds that share programs (`subtune bench
--config=configs/text_study.py:movie --only=seeds`, 20 steps each) take 0.69 of five
runs, and 0.89 where what these compile is on disk already.

It needs the data of `subtune fetch movie_sentiment`, and `:real` the weights of
`subtune fetch minilm`, without which weights are random: they cost the same, but words
are not cut into the pieces of a tokenizer, so that texts are shorter.
"""

import ml_collections

from subtune_jax import check_choice, reach


def get_config(weights: str = "random") -> ml_collections.ConfigDict:
    """At most 64 tokens a text, one input of every neuron."""
    check_choice("weights", weights, ("random", "real"))
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(name="movie_sentiment")
    config.backbone = dict(
        name="bert", weights="minilm" if weights == "real" else None, length=64
    )
    config.method = dict(name="random", scope="neuron", count=1, extras=reach.BIASES)

    config.batch_size = 32
    config.train_steps = 100
    config.validation_examples = 320
    config.optimizer = dict(name="adamw", learning_rate=2e-5)
    return config
