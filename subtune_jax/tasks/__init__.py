"""Data sources: one file each, with `make(...) -> Task` and `TINY`.

`TINY` holds the arguments of the smallest useful form, on which the promises of
`tests/tasks/tasks_test.py` are tried. A file whose `make` reads files has
`write_sample(folder)` too: it writes the few that the tests need into an empty folder,
as the user or the data set has them, and returns the arguments that name them.
"""
