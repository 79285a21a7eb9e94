r"""The search that SubTuning's released code ships: backward from all blocks.

    subtune search --config=configs/subtuning_released.py --workdir=runs/released
    subtune search --config=configs/subtuning_released.py:vtab --workdir=runs/vtab

The argument is `cifar100`, all 50,000 images, or `vtab`, the 1,000 of VTAB-1k. Nothing
was run here: neither these data nor these weights can be had. An accelerator is needed:
a search is up to 395 trainings of a ViT-B/16.

Data: as TFDS prepares them; where they are not, the error says how. Weights: the file
`runs/weights/vit_b16.pth`, or --config.backbone.weights=PATH; without it nothing
starts. It is made where torchvision is:

    mkdir -p runs/weights
    python -c "import torch, torchvision.models as m; torch.save(
        m.vit_b_16(weights='IMAGENET1K_V1').state_dict(), 'runs/weights/vit_b16.pth')"

Facts of the released code (talswisa/SubTuning, the one greedy script and what it
calls): ViT-B/16 on CIFAR-100, from all twelve blocks, one less in each round, the best
of five folds' means; epsilon 0.01; AdamW at 1e-4 that decays every parameter by 5e-5,
batches of 256, cosine to 0 without warm-up, 10 epochs, random crops and flips at 224
pixels; then five trainings of the best set. Its rule, here `released`: a round may gain
nothing; the search ends when the best change is more than epsilon below the best value
seen, and returns the best set seen. The paper's rule is another one, and goes forward,
see `configs/subtuning_vtab.py`.

Not as there: folds are disjoint and the same for all candidates (theirs are drawn anew
for each), and the held-out one is not augmented; the weights are torchvision's (theirs,
timm's `vit_base_patch16_224_miil`, have no biases of query, key and value, and are no
ViT of ours); float32 (theirs is half precision, ours --config.dtype=bfloat16); the
network's mean and deviation of colours; a cosine by the step.
"""

import math

import ml_collections

from subtune_jax import check_choice


def get_config(data: str = "cifar100") -> ml_collections.ConfigDict:
    """One search."""
    check_choice("data", data, ("cifar100", "vtab"))
    config = ml_collections.ConfigDict()
    config.seed = 0

    name = "tfds" if data == "cifar100" else "vtab"
    config.task = dict(name=name, dataset="cifar100")
    config.backbone = dict(
        name="vit", variant="B/16", weights="runs/weights/vit_b16.pth", image_size=224
    )
    config.method = dict(name="head")  # of `train`; a search chooses its own blocks

    config.batch_size = 256
    # 10 epochs of the final trainings. Those of a fold, which has 4/5 of the examples,
    # take as many steps; theirs, ten epochs of it.
    examples = 50_000 if data == "cifar100" else 1000
    config.train_steps = 10 * math.ceil(examples / config.batch_size)
    config.augment = dict(crop=0.08, flip=True)
    config.optimizer = dict(
        name="adamw", learning_rate=1e-4, weight_decay=5e-5, decay=".*"
    )
    config.trials = dict(folds=5)
    config.greedy = dict(
        direction="backward", rule="released", epsilon=0.01, among=r"block\d.*"
    )
    # `blocks_only`, the set it starts from, is what the code calls fine-tuning.
    config.baselines = dict(rows=("selected", "head", "full", "blocks_only"), repeats=5)
    return config
