r"""SubTuning on VTAB-1k: the paper's four data sets and two networks.

    subtune profile --config=configs/subtuning_vtab.py:cifar100 --workdir=runs/profile
    subtune search --config=configs/subtuning_vtab.py:dmlab,vit_b16 --workdir=runs/dmlab

The argument is DATASET[,NETWORK]: `cifar100`, `flowers102`, `caltech101` or `dmlab`;
`resnet50` or `vit_b16`. Nothing was run here: neither these data nor these weights can
be had. An accelerator is needed.

Data: as TFDS prepares them; where they are not, the error says how. Weights: the file
`runs/weights/NETWORK.pth`, or --config.backbone.weights=PATH; without it nothing
starts. It is made where torchvision is, for `vit_b16` by
`m.vit_b_16(weights='IMAGENET1K_V1')`:

    mkdir -p runs/weights
    python -c "import torch, torchvision.models as m; torch.save(
        m.resnet50(weights='IMAGENET1K_V2').state_dict(), 'runs/weights/resnet50.pth')"

Facts of the released code (talswisa/SubTuning): five folds of the 1,000 images; five
final trainings on all of them; AdamW that decays every parameter, batches of 256,
cosine to 0 without warm-up, random crops and flips at 224 pixels; frozen blocks in
evaluation mode, batch statistics in the trained ones; only residual and encoder blocks
may be chosen. Rate, decay and epochs of the ResNet are those of its profile on VTAB,
those of the ViT are of the greedy search on all of CIFAR-100, for there is none on
VTAB. Its last version has other ViT weights, timm's `vit_base_patch16_224_miil`;
without biases of query, key and value they are no ViT of ours. What is taken here is
what its first version took.

The paper's rule, as accounts of it say: from the head alone, add the best block, stop
when its gain is below epsilon. They do not say which epsilon; 0.01 is the code's
default.

Not as there: float32 (theirs is half precision, ours --config.dtype=bfloat16); the
network's mean and deviation of colours, not the data set's; a cosine by the step, not
by the epoch; a profile is valued on the folds and not on the test split, and also has
the blocks at the ends of the network.
"""

import math

import ml_collections

from subtune_jax import check_choice

DATASETS = ("cifar100", "flowers102", "caltech101", "dmlab")
NETWORKS = ("resnet50", "vit_b16")


def get_config(arg: str = "cifar100") -> ml_collections.ConfigDict:
    """One data set and one network."""
    dataset, _, network = arg.partition(",")
    network = network or "resnet50"
    check_choice("DATASET", dataset, DATASETS)
    check_choice("NETWORK", network, NETWORKS)
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(name="vtab", dataset=dataset)
    weights = dict(weights=f"runs/weights/{network}.pth", image_size=224)
    if network == "resnet50":
        config.backbone = dict(name="resnet", variant="50", **weights)
        epochs, rate, decay, rates = 20, 1e-3, 1e-2, (1.0, 10.0)
    else:
        config.backbone = dict(name="vit", variant="B/16", **weights)
        epochs, rate, decay, rates = 10, 1e-4, 5e-5, (1.0,)
    config.method = dict(name="head")  # of `train`; a search chooses its own blocks

    config.batch_size = 256
    # 1,000 images are four updates an epoch, the last one of 232, and so are the 800 of
    # a fold: 80 in 20 epochs, 40 in 10. Ours are all of 256.
    config.train_steps = epochs * math.ceil(1000 / config.batch_size)
    config.batch_norm = "trained"
    config.augment = dict(crop=0.08, flip=True)
    config.optimizer = dict(
        name="adamw", learning_rate=rate, weight_decay=decay, decay=".*"
    )
    config.trials = dict(folds=5)
    config.greedy = dict(
        direction="forward", rule="paper", epsilon=0.01, among=r"(layer|block)\d.*"
    )
    # `blocks_only` is what the code calls fine-tuning. Its linear probe of the ResNet
    # has ten times the rate: each row has the one that is better for it.
    config.baselines = dict(
        rows=("selected", "head", "full", "blocks_only"), repeats=5, rates=rates
    )
    return config
