"""The command line: python -m minidl train | bench parallel."""

import argparse
import sys

from rich.console import Console

from minidl.commands import bench, train
from minidl.commands.arguments import Parser, Refused
from minidl.parallel import WorkerError

EPILOG = """\
each command has its own --help. See also python -m simulator and python -m lessons.

exit code: 0 all went well; 1 the run failed; 2 what was asked for cannot be done, and one line says why;
130 ended with Ctrl-C.
"""


def parser() -> Parser:
    top = Parser(
        "python -m minidl",
        description="A small deep-learning framework that really trains in parallel.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    train.add_parser(commands)
    bench.add_parser(commands)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    try:
        chosen = parser().parse_args(arguments)
        return chosen.run(chosen, Console())
    except Refused as error:
        print(f"minidl: {error}", file=sys.stderr)
        return 2
    except WorkerError as error:
        print(f"minidl: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nminidl: ended with Ctrl-C", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
