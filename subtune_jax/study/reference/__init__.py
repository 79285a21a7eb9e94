"""Our networks as they are usually written in PyTorch, to measure ours against them.

They are written for the benchmarks alone and need the `bench` extra.
"""
