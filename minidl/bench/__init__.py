"""Benchmarks: what they measure is a ratio within one run, its two sides in turn, and the median is what counts."""
