"""What networks are made of: layers, and files of weights.

`network` makes a `Backbone` of NNX blocks; `layers`, `attention`, `encoder` and
`convolutions` are the blocks' parts; `weights/` reads checkpoints without running code.
For files of `backbones/`.
"""
