"""`python -m simulator products`: matrix products split over workers in four ways, measured here and simulated."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

from rich.console import Console
from rich.text import Text

from minidl.bench.host import cores
from minidl.commands.arguments import check_writable, count
from minidl.commands.driver import EXIT_CODES, Outcome
from minidl.commands.output import print_table
from minidl.commands.pictures import drawn, pictures
from minidl.commands.progress import progress
from minidl.units import scaled
from simulator.commands.cluster_option import THIS_MACHINE, add_cluster_option, this_machine
from simulator.commands.shared_output import add_file_options, plain_table, say, say_crowding, say_written
from simulator.hardware import Cluster
from simulator.products import SPLITS, Row, check_sizes, products
from simulator.report import times

SIZES, WORKERS = (512, 1024, 2048), (1, 2, 4, 16, 64)
DESCRIPTION = """\
Split the product y = x weight^T of square matrices over workers in four ways:
by the rows of x, by the columns of y, by the inner dimension, and by blocks of
all three on a grid (SUMMA). For each, what a rank sends and how long forward
and backward take: in a table, and in products.png and .svg. Over as many
workers as this machine has cores they are measured, beside that simulated.
"""
EPILOG = f"""\
examples:
  python -m simulator products --size 512 --workers 1 --workers 2 --out here
  python -m simulator products --cluster dgx-a100 --size 8192 --json split.json

{EXIT_CODES}"""
HOW = {
    "rows": "each rank has its rows of x and y; the gradient of weight is summed",
    "columns": "its columns of y, and all of x, whose gradient is summed",
    "inner": "its columns of x; the parts of y are summed",
    "summa": "a block of each on the squarest grid; panels are broadcast",
}


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "products",
        help="split matrix products over workers in four ways, measured here and simulated",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("--size", action="append", type=count, default=[], metavar="N",
        help=f"rows and columns of the matrices, may be repeated (default: {_listed(SIZES)})")  # fmt: skip
    add("--workers", action="append", type=count, default=[], metavar="N",
        help=f"over how many, may be repeated (default: {_listed(WORKERS)})")  # fmt: skip
    add_cluster_option(add)
    add_file_options(add, "products")
    parser.set_defaults(run=run)


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def run(options, console: Console) -> Outcome:
    """Measure and simulate as asked."""
    sizes, workers = (sorted(set(given or usual)) for given, usual in (
        (options.size, SIZES), (options.workers, WORKERS)
    ))  # fmt: skip
    check_sizes(sizes, workers)
    paths = pictures(options.out, "products")
    check_writable(options.json, *paths)
    with progress() as tell:
        if options.cluster == THIS_MACHINE:
            cluster = this_machine(tell)
            rows = products(sizes, workers, cluster, cores(), tell)
        else:
            cluster = Cluster.load(options.cluster, devices=max(workers))
            rows = products(sizes, workers, cluster, 0, tell)

    def figure():
        from simulator.product_figure import product_figure  # loaded late: matplotlib takes as long as the rest

        return product_figure(rows, cluster)

    def show(console: Console) -> None:
        _show(rows, cluster, console)
        say_written(console, options.json, *paths)

    document = {"cluster": cluster.name, "rows": [asdict(row) for row in rows]}
    return Outcome([(options.json, document), *drawn(figure, *paths)], show)


def _show(rows: list[Row], cluster: Cluster, console: Console) -> None:
    """A table for each size, two lines for each number of workers; and what they are."""
    for size, of_size in groupby(rows, key=lambda row: row.size):
        console.print(Text.assemble((f"{size} × {size}", "bold"), f", {cluster.usual_precision}"))
        table = plain_table(gap=1)
        table.add_column("workers", justify="right")
        for split in SPLITS:
            table.add_column(split, justify="right", min_width=16)
        for workers, group in groupby(of_size, key=lambda row: row.workers):
            alike = list(group)
            table.add_row(str(workers), *map(_times, alike))
            if workers > 1:
                table.add_row("", *(f"[dim]{scaled(row.sent_bytes, 'B')}" for row in alike))
        print_table(console, table)
        console.print()
    measured = any(row.measured_seconds is not None for row in rows)
    lines = ["a/b: a is measured, b simulated; alone: simulated."] if measured else ["All is simulated."]
    lines += ["Of forward and backward: the time, and below it what a rank sends."]
    lines += [f"{split + ':':9}{meaning}" for split, meaning in HOW.items()]
    say(console, *lines)
    say_crowding(console, rows[-1].workers, cluster)


def _times(row: Row) -> str:
    return times(row.measured_seconds, row.simulated_seconds)
