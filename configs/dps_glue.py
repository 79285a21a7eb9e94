r"""DPS on GLUE: eight tasks, BERT-large, the hyper-parameters of the released code.

    subtune train --config=configs/dps_glue.py:rte --workdir=runs/dps_rte
    subtune train --config=configs/dps_glue.py:rte --config.method.name=dps_mix \
        --workdir=runs/dps_mix_rte

The argument is the name of a task of `tasks/glue.py`. Nothing was run here: neither
these data nor these weights can be had. An accelerator is needed.

Data: as TFDS prepares them; where they are not, the error says how. Weights: the folder
`runs/weights/bert-large-cased` in the layout of Hugging Face (config.json,
tokenizer.json, model.safetensors), or --config.backbone.weights=FOLDER; without it
nothing starts.

Facts of the released code (ZhangHaojie077/DPS, arXiv:2211.01642): AdamW at 2e-5, decay
.01 of all but biases and layer norms, 10 % warm-up, batches of 16, 128 tokens,
gradients clipped to norm 1, `drop_ratio` .3 (its `reserve_p`), stages of 5 % of the
steps. Steps are 690 of MRPC, 468 of RTE, 1,080 of STS-B and 1,605 of CoLA: three
epochs, so the other four have three epochs here. Dropout is 0; DPS Dense, not DPS Mix,
goes back to .1 from 2,000 steps on, and so does this file: for DPS Mix add
--config.backbone.dropout=0 there. It masks the gradient alone, so that momentum and
decay move what is masked: `moving` is "mask_gradient";
--config.optimizer.moving=mask_update holds it in place.

Not as there: the rate falls by a cosine, theirs in a line; float32, theirs is half
precision, whose sums are of scaled gradients (ours --config.dtype=bfloat16, with sums
in float32); ties. It reports the official validation part, which is test here and read
once, at the end; our own validation part is cut from training, at most a tenth of it,
so that as many steps are a little more than three epochs of the rest.
"""

import math

import ml_collections

from subtune_jax import check_choice

EXAMPLES = {  # of the official training part
    "cola": 8551,
    "sst2": 67349,
    "mrpc": 3668,
    "qqp": 363849,
    "stsb": 5749,
    "mnli": 392702,
    "qnli": 104743,
    "rte": 2490,
}


def get_config(task: str = "rte") -> ml_collections.ConfigDict:
    """One task."""
    check_choice("TASK", task, EXAMPLES)
    config = ml_collections.ConfigDict()
    config.seed = 42

    config.batch_size = 16
    epoch_steps = math.ceil(EXAMPLES[task] / config.batch_size)
    config.train_steps = 3 * epoch_steps
    config.eval_steps = epoch_steps
    config.save_steps = epoch_steps

    config.task = dict(name="glue", dataset=task)
    config.backbone = dict(
        name="bert",
        weights="runs/weights/bert-large-cased",
        length=128,
        dropout=0.1 if config.train_steps >= 2000 else 0.0,
    )
    config.method = dict(name="dps_dense", drop_ratio=0.3, update_ratio=0.05)
    config.optimizer = dict(
        name="adamw",
        learning_rate=2e-5,
        weight_decay=0.01,
        decay=r".*kernel|embed/(word|position|type)",
        warmup_steps=round(0.1 * config.train_steps),
        clip_norm=1.0,
        moving="mask_gradient",
    )
    return config
