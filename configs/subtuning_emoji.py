r"""SubTuning on drawings of emoji, nine categories; everything it needs is fetched.

    subtune profile --config=configs/subtuning_emoji.py --config.trials.seeds=3 \
        --proxy=all --workdir=runs/emoji_profile
    subtune search --config=configs/subtuning_emoji.py --config.trials.halving=3 \
        --config.trials.least_steps=16 --workdir=runs/emoji_search
    subtune profile --config=configs/subtuning_emoji.py:vit_s14 --workdir=runs/emoji_vit

The argument is `efficientnet_lite0` or `vit_s14`. Measured: see results/subtuning.json.
"""

import ml_collections

from subtune_jax import check_choice


def get_config(network: str = "efficientnet_lite0") -> ml_collections.ConfigDict:
    """One network; small images and short trainings, so that two CPU cores finish."""
    check_choice("network", network, ("efficientnet_lite0", "vit_s14"))
    vit = network == "vit_s14"
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(name="emoji")
    if vit:
        config.backbone = dict(
            name="vit", variant="S/14", weights="vit_s14", image_size=42
        )
    else:
        config.backbone = dict(name=network, weights=network, image_size=64)
    config.method = dict(name="head")  # of `train`; a search chooses its own blocks

    config.train_examples = 700
    config.validation_examples = 280
    config.batch_size = 16 if vit else 32
    config.train_steps = 48
    config.optimizer = dict(
        name="adamw",
        learning_rate=1e-4 if vit else 1e-3,
        weight_decay=0.01,
        warmup_steps=8,
        clip_norm=1.0,
        probe_steps=200,
        probe_learning_rate=3e-3,
    )
    config.greedy = dict(direction="forward", rule="paper", epsilon=0.005)
    config.baselines = dict(
        rows=("selected", "head", "full", "lp_ft"), rates=(1.0, 3.0)
    )
    return config
