r"""What training three middle blocks of EfficientNet-Lite0 costs; no downloads.

    subtune bench --config=configs/bench_efficientnet.py --workdir=runs/bench_lite0

Measured on two quiet cores, medians of 7 turns; the figures are in
`results/bench/efficientnet_lite0.json`. Relative to full fine-tuning, with the trunk
computed every time and once: time 0.45 and 0.33, operations 0.60 and 0.46, optimiser
0.14, compiled temporaries 0.21 and 0.20. Operations by needed ones, first, middle and
last block: 1.02, 1.00, 0.99. Eight devices reduce 1.828 MB for 4 k = 1.828 MB. A second
start compiles nothing. Waiting for data: 1.2 % of the time resident, 3.6 % streamed.
Ours forward and gradient 3.4 and 13.0 ms an image; the native depthwise form takes 14
and 17 times that, PyTorch 1.7 and 1.8, PyTorch channels-last 1.2 and 1.2.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Random weights cost what trained ones do."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.task = dict(name="structured", property="count", examples=1000)
    config.backbone = dict(name="efficientnet_lite0", weights=None, image_size=128)
    config.method = dict(name="blocks", names=("block09", "block10", "block11"))

    config.batch_size = 32
    config.train_steps = 100
    config.optimizer = dict(
        name="adamw", learning_rate=1e-3, weight_decay=0.05, clip_norm=1.0
    )
    return config
