"""From files to batches: images, texts, prepared data sets, splits, augmentation.

`dataset` holds examples as a network takes them, `batches` says which are in a step,
`inputs` turns them into what the network sees; `splits`, `images`, `tokenization`,
`text_files`, `tfds_*` are for files of `tasks/`; `agreement` and `dense` are metrics.
"""
