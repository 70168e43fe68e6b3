"""The command line: python -m minidl train | profile | bench parallel | bench train."""

import sys
from collections.abc import Sequence

from minidl.commands import bench, profile, train
from minidl.commands.arguments import Parser, called
from minidl.commands.driver import EXIT_CODES, answer

EPILOG = f"""\
each command has its own --help. See also python -m simulator and python -m lessons.

{EXIT_CODES}"""


def parser() -> Parser:
    top = Parser(
        called("minidl"), description="A small deep-learning framework that really trains in parallel.", epilog=EPILOG
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    train.add_parser(commands)
    profile.add_parser(commands)
    bench.add_parser(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    return answer("minidl", parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
