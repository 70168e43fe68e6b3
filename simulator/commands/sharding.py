"""`python -m simulator sharding`: what a worker holds where replicas share optimizer, gradients or parameters."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console

from minidl.commands.arguments import check_writable, count
from minidl.commands.driver import EXIT_CODES, Outcome
from minidl.commands.output import print_table
from minidl.commands.pictures import drawn, pictures
from minidl.commands.progress import progress
from minidl.parallel.memory import Memory
from minidl.units import scaled
from simulator.commands.cluster_option import THIS_MACHINE, add_cluster_option, this_machine
from simulator.commands.shared_output import add_file_options, plain_table, say, say_crowding, say_written
from simulator.hardware import Cluster
from simulator.report import times
from simulator.sharding import HIDDEN, LAYERS, MICRO_BATCHES, MODEL, Row, model_name, sharding, states

WORKERS = 4
DESCRIPTION = f"""\
Train a GPT with Adam on replicas that share nothing, the state of the
optimizer, gradients too, or parameters too (ZeRO stages 1 to 3, FSDP): what the
fullest worker holds by formula, simulated and measured, and the time of a step:
in a table, and in sharding.png and .svg. On this machine the GPT has {LAYERS} layers
of {HIDDEN}; on a cluster, where all is simulated, it is {MODEL}.
"""
EPILOG = f"""\
examples:
  python -m simulator sharding --workers 2 --out here
  python -m simulator sharding --cluster dgx-a100 --workers 64 --json sharding.json

{EXIT_CODES}"""


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "sharding", help="what a worker holds if replicas share optimizer, gradients, parameters: measured, simulated",
        description=DESCRIPTION, epilog=EPILOG,
    )  # fmt: skip
    add = parser.add_argument
    add("--workers", type=count, default=WORKERS, metavar="N", help=f"replicas (default: {WORKERS})")
    add_cluster_option(add)
    add_file_options(add, "sharding")
    parser.set_defaults(run=run)


def run(options, console: Console) -> Outcome:
    """Measure and simulate as asked."""
    if options.workers == 1:
        raise ValueError("--workers 1: a single replica has nothing to share, it takes 2 or more")
    paths, measured = pictures(options.out, "sharding"), options.cluster == THIS_MACHINE
    check_writable(options.json, *paths)
    with progress() as tell:
        if measured:
            cluster = this_machine(tell)
        else:
            cluster = Cluster.load(options.cluster, devices=options.workers)
        rows = sharding(options.workers, cluster, measured, tell)

    def figure():
        from simulator.sharding_figure import sharding_figure  # loaded late: matplotlib takes as long as the rest

        return sharding_figure(rows, cluster)

    def show(console: Console) -> None:
        _show(rows, cluster, console)
        say_written(console, options.json, *paths)

    errors = [{"simulated_error": row.simulated_error, "measured_error": row.measured_error} for row in rows]
    document = {
        "cluster": cluster.name, "model": model_name(measured), "precision": cluster.usual_precision,
        "optimizer": "Adam", "device_memory_bytes": cluster.memory_bytes,
    }  # fmt: skip
    document |= {"rows": [asdict(row) | own for row, own in zip(rows, errors, strict=True)]}
    return Outcome([(options.json, document), *drawn(figure, *paths)], show)


def _show(rows: list[Row], cluster: Cluster, console: Console) -> None:
    """Bytes of the model's states by formula, and how far off the others are; what is held beside them; the step."""
    measured = rows[0].measured is not None
    table = plain_table(gap=1)
    table.add_column("sharding")
    for name in ("formula", "simulated", *["measured"] * measured, "activations", "fits", "step"):
        table.add_column(name, justify="right")
    for row in rows:
        held = [_held(row.simulated, row.simulated_error)]
        if row.measured is not None:
            held.append(_held(row.measured, row.measured_error))
        step = times(row.measured_step_seconds, row.simulated_step_seconds)
        fits = "yes" if row.simulated.total <= cluster.memory_bytes else "no"
        cells = scaled(states(row.formula), "B"), *held, scaled(row.simulated.activations, "B"), fits, step
        table.add_row(row.sharding, *cells)
    print_table(console, table)
    lines = [
        f"{model_name(measured)} with Adam, {cluster.usual_precision}, {rows[0].workers:,} replicas on "
        f"{cluster.name}, {MICRO_BATCHES} micro-batches.",
        "What the fullest holds: parameters, gradients and optimizer; activations.",
        "formula: Rajbhandari et al. 2020, and two buckets at a time that are whole.",
    ]
    if measured:
        lines.append("step: a/b: a is measured, b simulated.")
    say(console, *lines)
    if measured:
        say_crowding(console, rows[0].workers, cluster)


def _held(memory: Memory, error: float) -> str:
    return f"{scaled(states(memory), 'B')} {error:+.1%}"
