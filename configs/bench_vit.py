r"""What training 8 inputs of every neuron of a ViT-S/16 costs; no downloads.

subtune bench --config=configs/bench_vit.py --workdir=runs/bench_vit
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
