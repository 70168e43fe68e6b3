"""Software stacks: what a framework makes of a model's kernels and collectives, as data and rewrites of a profile."""

from simulator.stacks.stack import Stack

__all__ = ["Stack"]
