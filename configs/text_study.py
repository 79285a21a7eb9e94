r"""Moving masks on texts, beside full fine-tuning, what regularises it, and controls.

    subtune compare --config=configs/text_study.py:movie --workdir=results/text_movie
    subtune compare --config=configs/text_study.py:r8 --workdir=results/text_r8

The argument is `movie` or `r8`: film reviews with 500 and with 1,000 sentences to train
on, five seeds; Reuters R8 with 500 items, three seeds. Twelve methods with a MiniLM.

Every method trains for three epochs in batches of 16, AdamW with decay .01 and 10 %
warm-up, and has its learning rate chosen in the same way: of three, a factor of about
three apart, the one with the best validation metric on the first seed. Those of methods
that move few elements are ten times those of the others, and the head's a hundred
times. A seed draws the training examples, the new head and the order.

`full_dropout` is full fine-tuning with the dropout of the pretraining, 0.1; all others
have none, as in DPS's code: `full` is what DPS must beat. `mixout`, `child_tuning_d`
and `child_tuning_f` are its rivals; `gmt` keeps half of each array in every step;
`spiel` moves 1 % of each kernel, after every 20 steps, not 100, for the runs are short;
`random` is as many elements of the same kernels that stay. `drift` is how far the
features of 200 validation examples have moved from the base's.

For time, sentences have 48 tokens at most, which cuts 3.5 % of them, and news items 64,
which cuts three in four; test is 15 % of all sentences. `movie` is estimated at 3.0
hours on two idle cores, `r8` at 1.2: 0.35 s a step of 16 x 48 tokens of full fine-
tuning, in proportion to tokens, half of it for `bias`, 1.4 times for `gmt`; 0.08 s to
answer 16 x 48, on 400 validation examples twice and on test; 5 s to compile a program.
"""

import ml_collections

from subtune_jax.names import check_choice

TASKS = ("movie", "r8")


def get_config(task: str = "movie") -> ml_collections.ConfigDict:
    """Every training of one set."""
    check_choice("TASK", task, TASKS)
    movie = task == "movie"
    config = ml_collections.ConfigDict()
    config.seed = 0

    if movie:
        config.task = dict(name="movie_sentiment", fractions=(0.75, 0.1, 0.15))
    else:
        config.task = dict(name="reuters_r8")
    length = 48 if movie else 64
    config.backbone = dict(name="bert", weights="minilm", length=length, lengths=())
    config.method = dict(name="dps_dense")  # of `train`

    config.train_examples = 500
    config.validation_examples = 400
    config.batch_size = 16
    config.train_steps = 94
    config.eval_steps = 0
    config.save_steps = 0
    config.drift_examples = 200
    config.optimizer = dict(
        name="adamw",
        learning_rate=1e-4,
        weight_decay=0.01,
        warmup_steps=9,
        clip_norm=1.0,
    )
    twice = dict(train_examples=1000, train_steps=188, optimizer=dict(warmup_steps=19))
    config.compare = dict(
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
    rates = {"spiel": 1e-3, "random": 1e-3, "bias": 1e-3, "head": 1e-2}
    for name, rate in rates.items():
        found[name]["optimizer"] = dict(learning_rate=rate)
    return found
