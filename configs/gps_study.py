r"""GPS on real tasks, beside random, magnitude, biases, linear probe and everything.

    subtune compare --config=configs/gps_study.py --workdir=results/gps

Three tasks x seven methods x three seeds with a ViT-S/14 at 42 pixels: photos of solar
cells and emoji, 600 to train on, and clip art, 481. Estimated for two CPU cores, from
single steps timed on one: an hour.

Every method has its learning rate chosen in the same way: of four, a factor of about
three apart, the one with the best validation metric on the first seed. The four of
full fine-tuning are a hundred times smaller, since every element moves there and few
do elsewhere. `--config.compare.rate_seeds=3` lets all seeds choose, at twice the cost.

`gps` is what its released code trains: one input of each neuron, and all biases but
those of norms. `random` and `magnitude` train as many elements and the same biases;
`gps_no_bias` leaves them out, and `bias` (BitFit) trains them alone, with those of
norms. `full` is true full fine-tuning; `head` is the linear probe.

Every method starts from the same new head, as GPS does, with no linear probe before it
(`optimizer.probe_steps`); nothing is augmented but the two views that GPS scores by.
No validation and no checkpoint comes between the steps, so that their time is theirs.
"""

import ml_collections

from subtune_jax.methods.gps import RIDING


def get_config() -> ml_collections.ConfigDict:
    """Every training of the grid."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(name="elpv")
    config.backbone = dict(name="vit", variant="S/14", weights="vit_s14", image_size=42)
    config.method = dict(name="gps")  # of `train`

    config.train_examples = 600
    config.batch_size = 16
    config.train_steps = 100
    config.eval_steps = 0
    config.save_steps = 0
    config.optimizer = dict(
        name="adam", learning_rate=1e-2, warmup_steps=10, clip_norm=1.0
    )
    same = dict(scope="neuron", count=1, extras=RIDING.pattern)
    config.compare = dict(
        tasks=dict(
            elpv={},
            emoji=dict(task=dict(name="emoji")),
            openclipart=dict(task=dict(name="openclipart"), train_examples=0),
        ),
        methods=dict(
            head=dict(method=dict(name="head")),
            full=dict(method=dict(name="full"), optimizer=dict(learning_rate=1e-4)),
            bias=dict(method=dict(name="bias")),
            gps=dict(method=dict(name="gps", k=1)),
            gps_no_bias=dict(method=dict(name="gps", k=1, biases=False)),
            random=dict(method=dict(name="random", **same)),
            magnitude=dict(method=dict(name="magnitude", **same)),
        ),
        seeds=(0, 1, 2),
        rates=(0.1, 0.3, 1.0, 3.0),
    )
    return config
