"""The options by which a command is told a plan: one for each field of Plan that people choose."""

import argparse

from minidl.commands.arguments import count
from minidl.parallel.plan import SCHEDULES, SHARDINGS, Plan
from minidl.units import counted

COUNTS = {
    "data": "replicas of the model",
    "pipeline": "stages of the model",
    "tensor": "ranks that share a layer",
    "micro_batches": "slices of a replica's batch",
}
CHOICES = {"schedule": (SCHEDULES, "of the pipeline"), "sharding": (SHARDINGS, "what replicas share")}


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Add --data, --pipeline and so on, in a group of their own."""
    group = parser.add_argument_group("plan")
    for name, what in COUNTS.items():
        least = getattr(Plan, name)
        group.add_argument(_option(name), type=count, default=least, metavar="N", help=f"{what} (default: {least})")
    for name, (choices, what) in CHOICES.items():
        first = getattr(Plan, name)
        group.add_argument(_option(name), choices=choices, default=first, help=f"{what} (default: {first})")


def chosen_plan(options: argparse.Namespace, **changes: int) -> Plan:
    """The plan that the options of `add_plan_options` describe, but for the fields given here."""
    return Plan(**{name: getattr(options, name) for name in (*COUNTS, *CHOICES)} | changes)


def crowding(workers: int, cores: int) -> str | None:
    """A sentence for a plan that has more workers than this machine has cores; None for others."""
    if workers <= cores:
        return None
    shared = f"{counted(workers, 'worker')} share {counted(cores, 'core')}"
    return f"{shared}: they take turns, and more of them are no faster here."


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
