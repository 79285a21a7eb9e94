"""Networks: one file each, with `make(...) -> Backbone` and `TINY`.

`TINY` holds the arguments of the smallest useful form, on which the promises of
`tests/backbones/backbones_test.py` are tried.
"""
