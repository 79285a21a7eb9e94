r"""What GPS costs compared with full fine-tuning: ViT-S/14, one input of every neuron.

    subtune bench --config=configs/bench_gps.py --only=sparse,pytorch,network \
        --workdir=runs/bench_gps

Random weights: they cost what trained ones do. Measured on two idle cores, medians of
7 turns: a step of one input a neuron with biases takes 0.68 of full fine-tuning's time
and 0.61 of PyTorch's masked way, and saves 0.93 of 12 n bytes. With batches of 16 these
are 0.67, 0.59 and 0.84, of 32 0.68, 0.67 and 1.02 (5 turns): in either step
activations, more than gradients, are what memory holds at its peak. `--only=selection`,
minutes of compiling: scoring takes 1.0 to 1.2 of its gradients; choosing one input of
each neuron 2.2 passes over the scores, 0.1 % and 1 % of 85.9 million 2.1 and 2.6.
"""

import ml_collections

from subtune_jax import reach


def get_config() -> ml_collections.ConfigDict:
    """98 pixels, 50 tokens an image, as the offline tasks are trained."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(name="structured", property="count", examples=1000)
    config.backbone = dict(name="vit", variant="S/14", weights=None, image_size=98)
    config.method = dict(name="random", scope="neuron", count=1, extras=reach.BIASES)

    config.batch_size = 24
    config.train_steps = 100
    config.optimizer = dict(name="adam", learning_rate=1e-3, clip_norm=1.0)
    return config
