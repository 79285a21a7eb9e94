r"""What SubTuning's profile and its many tasks on one trunk cost.

subtune bench --config=configs/bench_subtuning.py --only=profile,multitask \
        --repeats=3 --workdir=runs/bench_subtuning
subtune bench --config=configs/bench_subtuning.py:vit_s14 --only=profile \
        --repeats=1 --workdir=runs/bench_subtuning_vit
"""

import ml_collections


def get_config(network: str = "efficientnet_lite0") -> ml_collections.ConfigDict:
    """Real weights and photos: a profile needs a block that is better than others."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(name="elpv")
    if network == "vit_s14":
        config.backbone = dict(
            name="vit", variant="S/14", weights="vit_s14", image_size=42
        )
    else:
        config.backbone = dict(name=network, weights=network, image_size=64)
    config.method = dict(name="head")

    config.train_examples = 800
    config.batch_size = 32 if network != "vit_s14" else 16
    config.train_steps = 80
    config.optimizer = dict(
        name="adamw",
        learning_rate=1e-3 if network != "vit_s14" else 1e-4,
        weight_decay=0.01,
        warmup_steps=0,
        clip_norm=1.0,
        probe_steps=200,
        probe_learning_rate=3e-3,
    )
    return config
