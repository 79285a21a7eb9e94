"""Data sources: one file each, exporting `make(...) -> Task`."""
