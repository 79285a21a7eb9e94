r"""Dynamic masks on texts, compared with full fine-tuning, regularisers and controls.

    subtune compare --config=configs/text_study.py:movie --workdir=runs/text_movie \
        --export=results/text_movie.json
    subtune compare --config=configs/text_study.py:r8 --workdir=runs/text_r8 \
        --export=results/text_r8.json

The argument is `movie` or `r8`: film reviews with 500 and with 1,000 sentences to train
on, five seeds; Reuters R8 with 500 items, three seeds. Twelve methods with a MiniLM.

Every method trains for 62 steps with batches of 16, twice through 500 examples and once
through 1,000, AdamW with decay .01 and 10 % warm-up, and has its learning rate chosen
in the same way: of three, a factor of about three apart, the one with the best
validation metric on the first seed. Those of methods that move few elements are ten
times those of the others, and the head's a hundred times. A seed draws the training
examples, the new head and the order.

`full_dropout` is full fine-tuning with the dropout of the pretraining, 0.1; all others
have none, as in DPS's code: `full` is what DPS must beat. `mixout`, `child_tuning_d`
and `child_tuning_f` are its rivals; `gmt` keeps half of each array in every step;
`spiel` moves 1 % of each kernel, after every 20 steps, not 100, for the runs are short;
`random` is as many elements of the same kernels that stay. `drift` is how far the
features of 100 validation examples have moved from the base's.

Measured, mean test metric of the seeds, reviews 500 / 1,000 / R8: full .760 / .770 /
.827, with dropout .759 / .765 / .825, dps_dense .761 / .772 / .872, dps_mix .755 / .781
/ .874, child_tuning_d .770 / .781 / .858, child_tuning_f .764 / .777 / .852, mixout
.743 / .751 / .853, gmt .769 / .777 / .866, spiel .748 / .767 / .863, random
.776 / .778 / .944, bias .752 / .751 / .917, head .731 / .733 / .928.
`docs/results/texts.md` says why. Further runs, in `results/text_checks.json`: full
fine-tuning of 1,000 at the other rate, SpIEL with one growth and none later, R8 after a
linear probe.

    subtune seeds --config=configs/text_study.py:movie --config.method.name=full \
        --config.train_examples=1000 --config.seed=1 --count=4 --workdir=runs/full1000
    subtune train --config=configs/text_study.py:movie --config.method.name=spiel \
        --config.method.fraction=0.01 --config.method.period_steps=100 \
        --config.optimizer.learning_rate=9e-3 --workdir=runs/spiel_once
    subtune train --config=configs/text_study.py:r8 --config.method.name=full \
        --config.optimizer.learning_rate=9e-5 --config.optimizer.probe_steps=100 \
        --config.optimizer.probe_learning_rate=3e-2 --workdir=runs/r8_lpft

For time, texts have 32 tokens at most, which cuts three sentences in ten and four news
items in five; test is a tenth of all sentences. Two processes of one core each took 80
minutes for `movie`, and 35 to 45 for `r8` while other work ran.
"""

import ml_collections

from subtune_jax import check_choice

TASKS = ("movie", "r8")


def get_config(task: str = "movie") -> ml_collections.ConfigDict:
    """Every training of one set."""
    check_choice("TASK", task, TASKS)
    movie = task == "movie"
    config = ml_collections.ConfigDict()
    config.seed = 0

    if movie:
        config.task = dict(name="movie_sentiment", fractions=(0.8, 0.1, 0.1))
    else:
        config.task = dict(name="reuters_r8")
    config.backbone = dict(name="bert", weights="minilm", length=32, lengths=())
    config.method = dict(name="dps_dense")  # of `train`

    config.train_examples = 500
    config.validation_examples = 400
    config.batch_size = 16
    config.train_steps = 62
    config.eval_steps = 0
    config.save_steps = 0
    config.keep_delta = False
    config.drift_examples = 100
    config.optimizer = dict(
        name="adamw",
        learning_rate=3e-4,
        weight_decay=0.01,
        warmup_steps=6,
        clip_norm=1.0,
    )
    twice = dict(train_examples=1000)
    config.grid = dict(
        tasks=dict(movie500={}, movie1000=twice) if movie else dict(r8={}),
        methods=_methods(),
        seeds=(0, 1, 2, 3, 4) if movie else (0, 1, 2),
        rates=(0.3, 1.0, 3.0),
    )
    return config


def _methods() -> dict:
    """Label -> what it changes of the config."""
    full, few = dict(name="full"), dict(fraction=0.01)
    found = {
        "full_dropout": dict(method=full, backbone=dict(dropout=0.1)),
        "full": dict(method=full),
    }
    rivals = ("dps_dense", "dps_mix", "child_tuning_d", "child_tuning_f", "mixout")
    found |= {name: dict(method=dict(name=name)) for name in (*rivals, "gmt")}
    found["spiel"] = dict(method=dict(name="spiel", period_steps=20, **few))
    found["random"] = dict(method=dict(name="random", scope="array", **few))
    found |= {name: dict(method=dict(name=name)) for name in ("bias", "head")}
    rates = {"spiel": 3e-3, "random": 3e-3, "bias": 3e-3, "head": 3e-2}
    for name, rate in rates.items():
        found[name]["optimizer"] = dict(learning_rate=rate)
    return found
