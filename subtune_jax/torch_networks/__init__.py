"""Our networks as they are usually written in PyTorch, to measure ours beside them.

Each file exports `logits(made, params, x) -> [B, C]`: our parameters by our paths as
tensors, `x` as it enters our first block, nothing dropped. PyTorch is imported where
it is used: the package does not need it.
"""
