"""A config of before the wings: sections `search`, `finals`, `trials`."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Seconds on one core."""
    config = ml_collections.ConfigDict()
    config.task = dict(name="structured", examples=80, image_size=16)
    config.backbone = dict(name="mlp", image_size=16, widths=(4, 4))
    config.method = dict(name="gps")
    config.batch_size = 8
    config.train_steps = 4
    config.eval_steps = 0
    config.save_steps = 2
    config.report = False
    config.search = dict(max_items=1)
    config.finals = dict(rows=("selected", "head"), repeats=1)
    config.trials = dict(folds=2)
    return config
