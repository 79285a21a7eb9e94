r"""SubTuning on all of CIFAR-10 or CIFAR-100: what is left of it with enough data?

    subtune profile --config=configs/subtuning_cifar.py:cifar10 --workdir=runs/profile
    subtune search --config=configs/subtuning_cifar.py:cifar100 --workdir=runs/search

The argument is `cifar10` or `cifar100`. Nothing was run here: neither these data nor
these weights can be had. An accelerator is needed: each candidate is ten epochs.

Data: as TFDS prepares them; where they are not, the error says how. Weights: the file
`runs/weights/resnet50.pth`, or --config.backbone.weights=PATH; without it nothing
starts. It is made where torchvision is:

    mkdir -p runs/weights
    python -c "import torch, torchvision.models as m; torch.save(
        m.resnet50(weights='IMAGENET1K_V2').state_dict(), 'runs/weights/resnet50.pth')"

Facts of the released code (talswisa/SubTuning): the profile and fine-tuning of
ResNet-50 take 10 epochs of AdamW at 1e-3 that decays every parameter by 1e-2, batches
of 256, cosine to 0 without warm-up, random crops and flips at 224 pixels; frozen blocks
in evaluation mode, batch statistics in the trained ones. No search with a ResNet is
shipped: it takes the same recipe here. Without cross-validation the code values
candidates on the test split; here they are valued on a tenth of the training split.

The paper's rule, as accounts of it say: from the head alone, add the best block, stop
when its gain is below epsilon. They do not say which epsilon; 0.01 is the code's
default.

Not as there: float32 (theirs is half precision, ours --config.dtype=bfloat16); the
network's mean and deviation of colours, not the data set's; a cosine by the step, not
by the epoch; a profile also has the stem.
"""

import math

import ml_collections

from subtune_jax import check_choice


def get_config(dataset: str = "cifar10") -> ml_collections.ConfigDict:
    """One data set."""
    check_choice("dataset", dataset, ("cifar10", "cifar100"))
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(
        name="tfds", dataset=dataset, train="train[:90%]", validation="train[90%:]"
    )
    config.backbone = dict(
        name="resnet", variant="50", weights="runs/weights/resnet50.pth", image_size=224
    )
    config.method = dict(name="head")  # of `train`; a search chooses its own blocks

    config.batch_size = 256
    # 10 epochs of the final trainings, on 50,000 images; candidates, on 45,000, take as
    # many steps.
    config.train_steps = 10 * math.ceil(50_000 / config.batch_size)
    config.batch_norm = "trained"
    config.augment = dict(crop=0.08, flip=True)
    config.optimizer = dict(
        name="adamw", learning_rate=1e-3, weight_decay=1e-2, decay=".*"
    )
    config.greedy = dict(
        direction="forward", rule="paper", epsilon=0.01, among=r"layer\d.*"
    )
    # `blocks_only` is what the code calls fine-tuning. Its linear probe has ten times
    # the rate: each row has the one that is better for it.
    config.baselines = dict(
        rows=("selected", "head", "full", "blocks_only"), repeats=5, rates=(1.0, 10.0)
    )
    return config
