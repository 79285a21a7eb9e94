"""Networks: one file each, exporting `make(...) -> Backbone` and `TINY`."""
