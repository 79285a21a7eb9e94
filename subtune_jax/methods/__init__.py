"""Selection methods: one file each, exporting `make(...) -> Selector` and `TINY`."""
