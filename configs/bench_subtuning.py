r"""What SubTuning's profile and its many tasks on one trunk cost.

    subtune bench --config=configs/bench_subtuning.py --workdir=runs/bench_subtuning \
        --only=profile,multitask
    subtune bench --config=configs/bench_subtuning.py:vit_s14 --only=profile \
        --workdir=runs/bench_subtuning_vit

Measured on two idle cores, the profiles in one turn, the many tasks in seven:
`results/bench/subtuning_*.json`. Profile by the naive way 0.18, ViT 0.31; halved 0.072,
ViT 0.088, with the same best block: .40 where the next has .33, and .78 where it has
.76. With 240 steps (`--config.train_steps=240`) the ViT's are 0.39 and 0.107: the naive
way compiles no more for longer trainings. Values of the ViT are the same but for one
image of one block; of EfficientNet-Lite0 they differ by .005 on average, as they do
after one bit of the weights. On elpv, where blocks differ by no more than their error,
no early round says which is best. Eight tasks by their bound 1.12 and 1.00, separate
models by them 3.6 and 3.8.
"""

import ml_collections


def get_config(network: str = "efficientnet_lite0") -> ml_collections.ConfigDict:
    """Real weights, and a task that some block helps far more than others."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(
        name="structured",
        property="orientation",
        examples=1600,
        fractions=(0.5, 0.25, 0.25),
    )
    if network == "vit_s14":
        config.backbone = dict(
            name="vit", variant="S/14", weights="vit_s14", image_size=42
        )
    else:
        config.backbone = dict(name=network, weights=network, image_size=64)
    config.method = dict(name="head")

    config.train_examples = 800
    config.batch_size = 32 if network != "vit_s14" else 16
    config.train_steps = 160
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
