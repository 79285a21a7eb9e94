"""Benchmarks: one file each, exporting `run(...) -> dict` of ratios and their parts."""
