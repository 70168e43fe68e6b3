"""The options by which a command is told a plan: one for each field of Plan."""

import argparse
from dataclasses import fields

from minidl.commands.arguments import count, positive
from minidl.parallel.plan import Plan
from minidl.units import counted

NUMBERS = {int: (count, "N"), float: (positive, "X")}  # how a field whose default is such a number is read and written


def add_plan_options(parser: argparse.ArgumentParser, **found: str) -> None:
    """Add --data, --pipeline and so on, in a group of their own.

    found: fields that the command finds by itself where they are not given, and in words as what; they are None then.
    """
    group = parser.add_argument_group("plan")
    for field in fields(Plan):
        default, said = (None, found[field.name]) if field.name in found else (field.default, field.default)
        name = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            group.add_argument(name, action="store_true", help=field.metadata["help"])
            continue
        read, written = NUMBERS.get(type(field.default), (str, None))
        group.add_argument(
            name, type=read, default=default, metavar=written,
            choices=field.metadata["choices"], help=f"{field.metadata['help']} (default: {said})",
        )  # fmt: skip


def chosen_plan(options: argparse.Namespace, **changes: object) -> Plan:
    """The plan that the options of `add_plan_options` describe, but for the fields given here."""
    return Plan(**{field.name: getattr(options, field.name) for field in fields(Plan)} | changes)


def fields_in_words() -> str:
    """For a help text, a line for each field: how it is written in the text of a plan, and what it says."""
    lines = []
    for field in fields(Plan):
        written = "True" if isinstance(field.default, bool) else NUMBERS.get(type(field.default), (str, "NAME"))[1]
        what, choices = field.metadata["help"], field.metadata["choices"]
        said = f"{what}: {', '.join(choices)}" if choices else what
        lines.append(f"  {f'{field.name}={written}':24}{said}")
    return "\n".join(lines)


def crowding(workers: int, cores: int) -> str | None:
    """A sentence for a plan that has more workers than this machine has cores; None for others."""
    if workers <= cores:
        return None
    shared = f"{counted(workers, 'worker')} share {counted(cores, 'core')}"
    return f"{shared}: they take turns, and more of them are no faster here."
