"""From files to batches: images, texts, prepared data sets, splits, augmentation.

`dataset` holds examples as a network takes them, on the host and inside the step;
`batches` says which are in a step. For files of `tasks/` are `splits`, `images`,
`folders`, `text_files`, `text_tasks`, `orange_files` and `tfds_*`, for `backbones/`
`tokenization`; `agreement` and `dense` are metrics.
"""
