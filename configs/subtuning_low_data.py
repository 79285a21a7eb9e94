r"""SubTuning by the number of examples: does greedy search end at everything?

    subtune compare --config=configs/subtuning_low_data.py --workdir=runs/low_data

The argument is `cifar10` or `cifar100`. Nothing was run here: neither these data nor
these weights can be had. An accelerator is needed. `sizes.png` will show the accuracy
of what was selected, of the head alone and of full fine-tuning, and how many blocks
were selected. Another size of its own: `subtune search` with
`--config.train_examples=70 --config.validation_examples=30 --config.batch_size=64`.

Data: as TFDS prepares them; where they are not, the error says how. Weights: the file
`runs/weights/resnet50.pth`, or --config.backbone.weights=PATH; without it nothing
starts. It is made where torchvision is:

    mkdir -p runs/weights
    python -c "import torch, torchvision.models as m; torch.save(
        m.resnet50(weights='IMAGENET1K_V2').state_dict(), 'runs/weights/resnet50.pth')"

Facts of the released code (talswisa/SubTuning): the sizes are those of the active
learning of its first version, but for the smallest, 100, which is less than a batch;
ResNet-50, AdamW at 1e-3 that decays every parameter by 1e-2, batches of 256, cosine to
0 without warm-up, random crops and flips at 224 pixels; frozen blocks in evaluation
mode, batch statistics in the trained ones. It trains one given block there, 50 epochs
of whatever size; a search by size is not shipped.

The paper's rule, as accounts of it say: from the head alone, add the best block, stop
when its gain is below epsilon. They do not say which epsilon; 0.01 is the code's
default.

Not as there: all sizes take the same number of steps, 50 epochs of 1,000 images, so
that sizes differ by their data alone; subsets are drawn by class, not by margin;
float32 (theirs is half precision, ours --config.dtype=bfloat16); the network's mean and
deviation of colours; a cosine by the step.
"""

import math

import ml_collections

from subtune_jax import check_choice


def get_config(dataset: str = "cifar10") -> ml_collections.ConfigDict:
    """Searches on 10,000 images with three seeds, and on fewer with the first."""
    check_choice("dataset", dataset, ("cifar10", "cifar100"))
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(
        name="tfds", dataset=dataset, train="train[:90%]", validation="train[90%:]"
    )
    config.train_examples = 7000
    config.validation_examples = 3000
    config.backbone = dict(
        name="resnet", variant="50", weights="runs/weights/resnet50.pth", image_size=224
    )
    config.method = dict(name="head")  # of `train`; a search chooses its own blocks

    config.batch_size = 256
    config.train_steps = 50 * math.ceil(1000 / config.batch_size)
    config.batch_norm = "trained"
    config.augment = dict(crop=0.08, flip=True)
    config.optimizer = dict(
        name="adamw", learning_rate=1e-3, weight_decay=1e-2, decay=".*"
    )
    config.trials = dict(folds=5)
    config.greedy = dict(
        direction="forward", rule="paper", epsilon=0.01, among=r"layer\d.*"
    )
    # The linear probe of the code has ten times the rate: each row has the better one.
    config.baselines = dict(rows=("selected", "head", "full"), rates=(1.0, 10.0))
    config.grid = dict(searches={}, sizes=(500, 1000, 2500, 5000))
    return config
