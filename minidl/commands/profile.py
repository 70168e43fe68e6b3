"""`python -m minidl profile`: what each block of a model costs."""

import argparse
from pathlib import Path

from rich.console import Console

from minidl import device
from minidl.arena import memory_bytes
from minidl.commands.arguments import Refused, check_writable, count
from minidl.commands.driver import Outcome
from minidl.commands.output import print_table
from minidl.commands.own_model import HELP, OwnModel, blamed, model_name
from minidl.models import BUILDERS, builder
from minidl.parallel import Plan
from minidl.profile_table import profile_table
from minidl.profiling import Profile, profile
from minidl.units import counted, scaled

DESCRIPTION = """\
What each block of a model costs in forward and backward: parameters, FLOPs,
bytes moved and kept for backward, which are counted, and the time on this
machine, which is measured: the median of some runs.
"""
EPILOG = f"""\
{HELP}
examples:
  python -m minidl profile cifar-cnn --batch 64
  python -m minidl profile gpt-tiny --depth 2
  python -m minidl profile gpt3-175b --batch 1 --no-time
  python -m minidl profile --model net.py:build
"""


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "profile", help="what each block of a model costs", description=DESCRIPTION, epilog=EPILOG
    )
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("positional", nargs="?", type=model_name(BUILDERS, configs=True), metavar="MODEL",
                       help=f"FILE.py:BUILD, a config.json, or one of {', '.join(BUILDERS)}")  # fmt: skip
    which.add_argument(
        "--model", type=model_name(BUILDERS, configs=True), metavar="MODEL", help="the same, as `train` has it"
    )
    add("--batch", type=count, default=8, metavar="N", help="samples (default: 8)")
    add("--depth", type=count, default=1, metavar="N", help="how far down into blocks of blocks (default: 1)")
    add("--repeats", type=count, default=5, metavar="N", help="runs of which the median is taken (default: 5)")
    add("--no-time", action="store_true", help="count only, allocating nothing: for a model of any size")
    add("--json", type=Path, metavar="PATH", help="write the results for a program to read")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace, console: Console) -> Outcome:
    """Count and measure."""
    check_writable(chosen.json)
    name = chosen.positional or chosen.model
    own = OwnModel(name) if ":" in name else None
    with blamed(own and own.path):
        found = _profile(chosen, name, own, "meta")
        if not chosen.no_time:
            _check_memory(name, found)
            found = _profile(chosen, name, own, "cpu")

    def show(console: Console) -> None:
        console.print(f"{name}, {counted(chosen.batch, 'sample')}", highlight=False)
        print_table(console, profile_table(found))

    return Outcome([(chosen.json, {"model": name, "batch": chosen.batch, **found.as_dict()})], show)


def _profile(chosen: argparse.Namespace, name: str, own: OwnModel | None, where: str) -> Profile:
    with device(where):
        model = own.build(Plan().mesh()) if own else builder(name)()
        x, _ = own.example(model, chosen.batch) if own else model.example(chosen.batch)
        return profile(model, x, chosen.depth, chosen.repeats, show=False)


def _check_memory(name: str, found: Profile) -> None:
    """Refused if parameters, gradients and what is kept for backward do not fit into the memory of this machine."""
    needed = 8 * found.total.parameters + found.total.kept_bytes
    there = memory_bytes()
    if needed > there:
        raise Refused(
            f"{name} needs about {scaled(needed, 'B')}, this machine has {scaled(there, 'B')}: a smaller --batch, or "
            "--no-time to count only"
        )
