r"""What training 8 inputs of every neuron of a ViT-S/16 costs; no downloads.

    subtune bench --config=configs/bench_vit.py --workdir=runs/bench_vit

Measured on two cores shared with other work (load 3 to 5), medians of 3 turns. Relative
to full fine-tuning: time 0.94, operations 0.98 (neurons in every layer: all of the
backward pass is needed), optimiser 0.016, compiled temporaries 0.69, delta 0.019.
Operations by needed ones, first, middle and last block: 1.01, 1.00, 1.00. Eight devices
reduce 1.352 MB for 4 k = 1.352 MB. A second start compiles none of 80 programs.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Random weights cost what trained ones do."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(name="structured", property="count", examples=1000)
    config.backbone = dict(name="vit", variant="S/16", weights=None, image_size=64)
    config.method = dict(name="magnitude", scope="neuron", count=8)

    config.batch_size = 16
    config.train_steps = 100
    config.optimizer = dict(
        name="adamw", learning_rate=1e-3, weight_decay=0.05, clip_norm=1.0
    )
    return config
