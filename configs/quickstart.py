r"""TBD.

subtune train --config=configs/quickstart.py --workdir=runs/quickstart
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """One fine-tuning run."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(name="elpv")
    config.backbone = dict(
        name="efficientnet_lite0", weights="efficientnet_lite0", image_size=128
    )
    config.method = dict(name="blocks", names=("block09", "block10", "block11"))

    config.batch_size = 32
    config.train_steps = 250
    config.eval_steps = 50
    config.save_steps = 50
    config.optimizer = dict(
        name="adamw",
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup_steps=25,
        clip_norm=1.0,
        probe_steps=400,  # LP-FT: the head first, on features computed once
        probe_learning_rate=3e-3,
    )
    return config
