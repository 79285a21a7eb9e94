r"""GPS on fine-grained classes: the released hyper-parameters of each data set.

    subtune train --config=configs/gps_fgvc.py:cub --workdir=runs/gps_cub

The argument is a preset of `tasks/fgvc.py` (NABirds, which TFDS does not have, goes
by `task.name=folder` with K = 20, a rate of 1e-4, batches of 32). Nothing was run here:
neither these data nor these weights can be had. An accelerator is needed.

Data: as TFDS prepares them; where they are not, the error says how. Weights:
`runs/weights/vit_b16.npz`, the ViT-B/16 of vision_transformer that was trained on
ImageNet-21k, or --config.backbone.weights=PATH; without it nothing starts.

Facts of the released code (FightingFighting/GPS): Adam without decay, 100 epochs, 10
of them warm-up, then cosine to 1e-8, and 10 more at its end; random crops and flips at
224 pixels, mixup .8, cutmix 1 and label smoothing .1; an average of the weights is
evaluated. It trains on training and validation images together and reports the best
epoch's test accuracy.

Not as there: validation images are kept apart, test is read once at the end; no label
smoothing, no dropped paths (.1 for flowers), no ten last epochs.
"""

import ml_collections

from subtune_jax import check_choice

RELEASED = {  # data set -> K, learning rate, batch size, average, training images here
    "cub": (2, 3e-3, 32, 0.9998, 5394),
    "flowers": (1, 1e-3, 32, 0.99, 1020),
    "cars": (15, 5e-4, 32, 0.9998, 7329),
    "dogs": (1, 1e-4, 64, 0.9998, 10800),
}


def get_config(dataset: str = "cub") -> ml_collections.ConfigDict:
    """One data set."""
    check_choice("DATASET", dataset, RELEASED)
    k, rate, batch_size, ema, examples = RELEASED[dataset]
    config = ml_collections.ConfigDict()
    config.seed = 42

    config.task = dict(name="fgvc", dataset=dataset)
    config.backbone = dict(
        name="vit",
        variant="B/16",
        weights="runs/weights/vit_b16.npz",
        image_size=224,
    )
    config.method = dict(name="gps", k=k)

    epoch_steps = examples // batch_size
    config.batch_size = batch_size
    config.train_steps = 100 * epoch_steps
    config.augment = dict(crop=0.08, flip=True, mixup=0.8, cutmix=1.0)
    config.optimizer = dict(
        name="adam", learning_rate=rate, warmup_steps=10 * epoch_steps, ema=ema
    )
    return config
