r"""GPS on masks: one input of each neuron of a ViT-S/14, to find drawn polyps.

    subtune train --config=configs/gps_polyps.py --workdir=runs/gps_polyps
    subtune train --config=configs/gps_polyps.py --config.method.name=head \
        --config.augment.flip=False --config.optimizer.learning_rate=3e-3 \
        --workdir=runs/head_polyps

The second command trains the head alone, on features that are computed once.

Measured on one seed and one CPU core, with fewer scenes (`--config.task.examples=300`,
75 of them in the test split): test mDice 0.911 after 60 steps of the first command
(`--config.train_steps=60`), 0.694 after 200 steps of the second. As written here
neither was run.

Your own masks:
`--config.task.name=folder_masks --config.task.path=DIR`, and for those of Kvasir-SEG,
which are in black and white, `--config.task.threshold=128`.

GPS scores by the task's own loss: its contrastive loss compares images that have one
label each. That is what its released code does for masks, where the loss is binary
cross-entropy and IoU, the network SAM, and K one in the image encoder alone; prompt
encoder and mask decoder are trained whole. There the masks that score are those of the
test split; here they are of the training split, as for every task.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """One fine-tuning run."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(name="polyps", examples=600, image_size=112)
    config.backbone = dict(
        name="vit", variant="S/14", weights="vit_s14", image_size=112
    )
    config.method = dict(name="gps", k=1, loss="task")

    config.batch_size = 16
    config.train_steps = 200
    config.eval_steps = 50
    config.save_steps = 100
    config.augment = dict(flip=True)
    config.optimizer = dict(
        name="adam", learning_rate=1e-3, warmup_steps=20, clip_norm=1.0
    )
    return config
