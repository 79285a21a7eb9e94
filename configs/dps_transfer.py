r"""DPS out of domain: 8,000 pairs of MNLI or SNLI to train on, five sets to test on.

    subtune train --config=configs/dps_transfer.py:mnli --workdir=runs/dps_mnli
    subtune evaluate --config=configs/dps_transfer.py:mnli,snli \
        --delta=runs/dps_mnli/delta --workdir=runs/dps_mnli_snli
    subtune evaluate --config=configs/dps_transfer.py:mnli,scitail \
        --delta=runs/dps_mnli/delta --workdir=runs/dps_mnli_scitail

The argument is what to train on, `mnli` or `snli`, and what to test on: `mnli`, `snli`,
`sick`, `scitail` or `rte`; the same unless given. One training serves all five: its
delta is evaluated. Nothing was run here: neither these data nor these weights can be
had. An accelerator is needed.

Data: as TFDS prepares them, see `tasks/transfer.py`; it does not have SICK, whose file
is `runs/data/SICK_test_annotated.txt` or --config.task.path=FILE. Weights are those of
`dps_glue.py`, and so are the facts of the released code (ZhangHaojie077/DPS,
arXiv:2211.01642) and what is not as there.

1,500 steps of 16 pairs, three epochs of 8,000 stratified ones; stages of 75 steps. The
code evaluates on the validation part of every set; here test is the official test part
of SNLI, SICK and SciTail. Of SciTail and RTE, which know two classes, a predicted
contradiction counts as neutral, there and here.
"""

import ml_collections

from subtune_jax import check_choice

TRAIN = ("mnli", "snli")
TEST = ("mnli", "snli", "sick", "scitail", "rte")


def get_config(arg: str = "mnli") -> ml_collections.ConfigDict:
    """One set to train on and one to test on."""
    train, _, test = arg.partition(",")
    test = test or train
    check_choice("TRAIN", train, TRAIN)
    check_choice("TEST", test, TEST)
    config = ml_collections.ConfigDict()
    config.seed = 42

    config.task = dict(name="transfer", train=train, test=test)
    if test == "sick":
        config.task.path = "runs/data/SICK_test_annotated.txt"
    config.train_examples = 8000
    config.backbone = dict(
        name="bert", weights="runs/weights/bert-large-cased", length=128
    )
    config.method = dict(name="dps_dense", drop_ratio=0.3, update_ratio=0.05)

    config.batch_size = 16
    config.train_steps = 1500
    config.eval_steps = 500
    config.save_steps = 500
    config.optimizer = dict(
        name="adamw",
        learning_rate=2e-5,
        weight_decay=0.01,
        decay=r".*kernel|embed/(word|position|type)",
        warmup_steps=150,
        clip_norm=1.0,
        moving="mask_gradient",
    )
    return config
