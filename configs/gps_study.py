r"""GPS on real tasks, and random, magnitude, biases, linear probe and everything.

    subtune compare --config=configs/gps_study.py --workdir=runs/gps \
        --export=results/gps.json
    subtune compare --config=configs/gps_study.py:text --workdir=runs/gps_text \
        --export=results/gps_text.json

Three tasks x six methods x three seeds with an EfficientNet-Lite0 at 64 pixels: photos
of solar cells and emoji, 600 to train on, and clip art, 481.

Measured, test accuracy, mean of three seeds, elpv / openclipart / emoji: full .832 /
.608 / .764, gps .822 / .545 / .725, magnitude .819 / .552 / .719, random .819 / .543 /
.716, bias .818 / .519 / .714, head .817 / .512 / .710. `results/gps.json` has the runs.

With `text`, film reviews and a MiniLM, 62 steps and three rates: full .779, gps .754,
by the task's loss, random .753, bias .749, magnitude .746, head .733.

Every method starts from the same base and the same head, 200 steps of a linear probe,
and has its learning rate chosen in the same way: of four (text: three), a factor of
about three apart, the one with the best validation metric on the first seed. Those of
full fine-tuning are ten times smaller, since every element moves there and few do
elsewhere.
`--config.grid.rate_seeds=3` lets all seeds choose, at twice the cost.

`gps` takes one input of each neuron by the contrastive gradient; `random` and
`magnitude` take as many. This network has no biases but those of norms, which GPS
leaves alone and `bias` (BitFit) trains. `full` is true full fine-tuning; `head` trains
the probe's head on. Nothing is augmented but the two views that GPS scores by. No
validation and no checkpoint comes between the steps, so that their time is theirs.
"""

import ml_collections

from subtune_jax import check_choice


def get_config(kind: str = "images") -> ml_collections.ConfigDict:
    """Every training of the grid."""
    check_choice("KIND", kind, ("images", "text"))
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(name="elpv")
    config.backbone = dict(
        name="efficientnet_lite0", weights="efficientnet_lite0", image_size=64
    )
    config.method = dict(name="gps")  # of `train`

    config.train_examples = 600
    config.batch_size = 32
    config.train_steps = 100
    config.eval_steps = 0
    config.save_steps = 0
    config.optimizer = dict(
        name="adam",
        learning_rate=3e-3,
        warmup_steps=10,
        clip_norm=1.0,
        probe_steps=200,
        probe_learning_rate=3e-3,
    )
    few = dict(scope="neuron", count=1)
    config.grid = dict(
        tasks=dict(
            elpv={},
            emoji=dict(task=dict(name="emoji")),
            openclipart=dict(task=dict(name="openclipart"), train_examples=0),
        ),
        methods=dict(
            head=dict(method=dict(name="head")),
            full=dict(method=dict(name="full"), optimizer=dict(learning_rate=3e-4)),
            bias=dict(method=dict(name="bias")),
            gps=dict(method=dict(name="gps", k=1)),
            random=dict(method=dict(name="random", **few)),
            magnitude=dict(method=dict(name="magnitude", **few)),
        ),
        seeds=(0, 1, 2),
        rates=(0.1, 0.3, 1.0, 3.0),
    )
    if kind == "text":
        _text(config)
    return config


def _text(config: ml_collections.ConfigDict) -> None:
    """The same on sentences, shorter; texts have no views to contrast."""
    config.task = dict(name="movie_sentiment", fractions=(0.8, 0.1, 0.1))
    config.backbone = dict(name="bert", weights="minilm", length=32, lengths=())
    config.validation_examples = 400
    config.batch_size = 16
    config.train_steps = 62
    config.keep_delta = False
    config.grid.methods.gps.method.loss = "task"
    config.grid.tasks = dict(movie={})
    config.grid.rates = (0.3, 1.0, 3.0)
