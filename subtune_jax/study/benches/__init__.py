"""Benchmarks: one file each, found by its name; a new one needs no other edit.

A file has `run(setup, repeats)`, or `run(repeats)` where it needs no config. It returns
a dict of numbers, named in its docstring: times, `ratios` that were taken by turns in
one process, and `checks`, rows of `timing.check` with the limits that it promises.
"""
