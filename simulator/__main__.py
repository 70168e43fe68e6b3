"""The command line: python -m simulator compare, hardware, methods, predict, products, sharding, validate, …"""

import sys
from collections.abc import Sequence

from minidl.commands.arguments import Parser, called
from minidl.commands.driver import EXIT_CODES, answer
from simulator.commands import calibrate, compare, hardware, methods, predict, products, sharding, validate


def parser() -> Parser:
    top = Parser(called("simulator"), description="Predict how training scales.", epilog=EXIT_CODES)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    compare.add_parser(commands)
    hardware.add_parser(commands)
    methods.add_parser(commands)
    predict.add_parser(commands)
    products.add_parser(commands)
    sharding.add_parser(commands)
    validate.add_parser(commands)
    calibrate.add_parser(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    return answer("simulator", parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
