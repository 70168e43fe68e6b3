"""`python -m simulator`: compare, predict, calibrate."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from minidl import models
from minidl.commands.arguments import Parser, Refused, check_writable, count, print_table, progress_bar
from minidl.commands.driver import EXIT_CODES, Outcome, answer
from minidl.models.catalog import BUILDERS
from minidl.parallel import Plan
from minidl.parallel.plan import SCHEDULES, SHARDINGS
from simulator import plots
from simulator.calibrate import BUSY, Calibration, cache_path, calibration, drift
from simulator.compare import Comparison, compare
from simulator.hardware import Cluster
from simulator.predict import Prediction, simulate

STALE = 0.25  # a machine that has become so much faster or slower is calibrated again before a comparison
PROGRESS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
THIS_MACHINE = "this-machine"
PICTURES = (".png", ".svg")
CAPTION = "* more workers than cores: ranks wait for their turns on a core, priced by a measured mean"
ROUNDING = 1e-9  # of a step: a part of it that is smaller, or negative, is a difference of rounded numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    return answer("simulator", _parser, arguments)


def _parser() -> Parser:
    parser = Parser(
        "python -m simulator", description="Predict how training scales.", epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("compare", help="train here under several plans, simulate the same programs, compare")
    one.add_argument("--out", type=Path, default=Path(), metavar="DIR",
                     help="folder for compare.png, .svg, .json and the traces (default: here)")  # fmt: skip
    one.add_argument("--refresh", action="store_true", help="calibrate this machine again first")
    one.set_defaults(run=_compare)

    two = commands.add_parser("predict", help="predict one training step of a model on a cluster")
    two.add_argument("model", metavar="MODEL", help=f"one of {', '.join(BUILDERS)}")
    two.add_argument("--cluster", type=_cluster, default=THIS_MACHINE, metavar="NAME",
                     help=f"a TOML file, or one of {_clusters()} (default: {THIS_MACHINE})")  # fmt: skip
    two.add_argument("--precision", metavar="NAME",
                     help="of activations and matrix products (default: the cluster's own)")  # fmt: skip
    for axis, what in (
        ("data", "replicas of the model"),
        ("tensor", "ranks that share a layer"),
        ("pipeline", "stages of the model"),
        ("micro-batches", "slices of a replica's batch"),
    ):
        two.add_argument(f"--{axis}", type=count, default=1, metavar="N", help=f"{what} (default: 1)")
    two.add_argument("--schedule", default="1f1b", choices=SCHEDULES, help="of the pipeline (default: 1f1b)")
    two.add_argument("--sharding", default="none", choices=SHARDINGS, help="what replicas share (default: none)")
    two.add_argument("--batch-size", type=count, required=True, metavar="N", help="samples of a global batch")
    two.add_argument("--json", type=Path, metavar="PATH", help="also write the prediction here")
    two.add_argument("--trace", type=Path, metavar="PATH", help="also write the timeline here, for Perfetto")
    two.add_argument("--timeline", type=_picture, metavar="PATH", help="also draw the timeline: a .png or .svg file")
    two.set_defaults(run=_predict)

    three = commands.add_parser("calibrate", help="measure this machine, and say what was found")
    three.add_argument("--refresh", action="store_true", help="measure again even if there is a cached calibration")
    three.add_argument("--json", type=Path, metavar="PATH", help="also write everything that was measured here")
    three.set_defaults(run=_calibrate)
    return parser


def _clusters() -> str:
    return ", ".join((THIS_MACHINE, *Cluster.catalog()))


def _cluster(text: str) -> str:
    if text != THIS_MACHINE and text not in Cluster.catalog() and not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no cluster {text!r}: neither a file nor one of {_clusters()}")
    return text


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(f"{text!r} does not end in {' or '.join(PICTURES)}")
    return path


# compare


def _compare(options, console: Console) -> Outcome:
    options.out.mkdir(parents=True, exist_ok=True)
    pictures = [options.out / f"compare{ending}" for ending in PICTURES]
    rows = options.out / "compare.json"
    check_writable(rows, *pictures)
    began = time.monotonic()
    with progress_bar(console, *PROGRESS) as bar:
        task = bar.add_task("calibrating this machine", total=None)

        def calibrating(what: str) -> None:
            bar.update(task, description=f"calibrating: {what}")

        found = calibration(options.refresh, calibrating)
        if abs(drift(found) - 1) > STALE:
            found = calibration(True, calibrating)
        result = compare(
            found, lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
        )
    seconds = time.monotonic() - began
    traces = [(options.out / file, trace.save) for file, trace in result.traces().items()]

    def draw(path: Path) -> None:
        plots.save(plots.comparison_figure(result), path)

    def show(console: Console) -> None:
        print_table(console, _comparison_table(result))
        _print_errors(result, console)
        console.print(f"{', '.join(map(str, (*pictures, rows)))} and {len(traces)} traces (trace-*.json)"
                      f" after {seconds:.0f} s")  # fmt: skip

    return Outcome([(rows, result.as_dict()), *traces, *((path, draw) for path in pictures)], show)


def _comparison_table(result: Comparison) -> Table:
    table = Table(title="The same programs, measured / simulated", caption=CAPTION, padding=(0, 0, 0, 1))
    table.add_column("plan")
    for column in ("workers", "step, ms", "error", "speedup", "bubble, %", "exposed comm., ms"):
        table.add_column(column, justify="right")
    model = None
    for r in result.rows:
        if r.model != model:
            model = r.model
            table.add_section()
            table.add_row(f"[bold]{model}")
        pairs = (
            (r.measured_bubble_fraction * 100, r.simulated_bubble_fraction * 100, "{:.0f} / {:.0f}"),
            (r.measured_exposed_communication_seconds * 1e3, r.simulated_exposed_communication_seconds * 1e3,
             "{:.2f} / {:.2f}"),
        )  # fmt: skip
        table.add_row(
            r.plan, f"{r.workers}{' *' if r.oversubscribed else ''}",
            f"{r.measured_step_seconds * 1e3:.1f} / {r.simulated_step_seconds * 1e3:.1f}", f"{r.error:+.0%}",
            f"{r.measured_speedup:.2f} / {r.simulated_speedup:.2f}",
            *(form.format(measured, simulated) for measured, simulated, form in pairs),
        )  # fmt: skip
    return table


def _print_errors(result: Comparison, console: Console) -> None:
    for oversubscribed, which in ((False, "workers within the cores"), (True, "more workers than cores")):
        if (error := result.mean_error(oversubscribed)) is not None:
            console.print(f"mean absolute error of the step, {which}: {error:.1%}")
    drifts = [r.drift for r in result.rows]
    console.print(f"the machine was x{min(drifts):.2f} to x{max(drifts):.2f} as slow as when it was calibrated, by a "
                  "fixed probe between the runs; simulated times are scaled by it")  # fmt: skip
    if max(drifts) > BUSY * min(drifts):
        console.print("other programs kept this machine busy meanwhile: the comparison says little; run it again")


# predict


def _predict(options, console: Console) -> Outcome:
    check_writable(options.json, options.trace, options.timeline)
    builder = models.builder(options.model)
    plan = Plan(
        data=options.data, tensor=options.tensor, pipeline=options.pipeline, micro_batches=options.micro_batches,
        schedule=options.schedule, sharding=options.sharding,
    )  # fmt: skip
    if options.cluster == THIS_MACHINE:
        if options.precision not in (None, "float32"):
            raise Refused(f"this machine trains in float32: --precision {options.precision} needs another --cluster")
        with progress_bar(console, *PROGRESS) as bar:
            task = bar.add_task("calibrating this machine", total=None)
            cluster = calibration(progress=lambda what: bar.update(task, description=f"calibrating: {what}")).cluster()
    else:
        cluster = Cluster.load(options.cluster, devices=plan.workers, precision=options.precision)
    prediction = simulate(builder, plan, cluster, options.batch_size)
    title = f"{options.model}: {plan} (simulated)"
    files = (
        (options.json, _prediction_json(options.model, prediction)),
        (options.trace, prediction.trace.save),
        (options.timeline, lambda path: plots.save(plots.timeline_figure([(title, prediction.trace)]), path)),
    )
    return Outcome(files, lambda console: print_table(console, _prediction_table(options.model, prediction)))


def _prediction_table(model: str, p: Prediction) -> Table:
    table = Table(title=f"Predicted: {model}, {p.plan}, on {p.plan.workers} x {p.cluster.name}", show_header=False)
    table.add_row("step", f"{p.step_seconds:.4g} s")
    for what, seconds in p.breakdown.items():
        shown = seconds if seconds > ROUNDING * p.step_seconds else 0.0
        table.add_row(f"  {what}", f"{shown:.4g} s ({shown / p.step_seconds:.0%})")
    table.add_row("throughput", f"{p.throughput:.4g} samples/s")
    table.add_row("model FLOPs utilisation", f"{p.mfu:.1%}")
    fullest = max(p.memory, key=lambda memory: memory.total)
    fits = "fits" if p.fits else "does NOT fit"
    table.add_row("memory, fullest device", f"{_size(p.memory_bytes)} of {_size(p.cluster.memory_bytes)}: {fits}")
    for what, nbytes in asdict(fullest).items():
        table.add_row(f"  {what}", _size(nbytes))
    return table


def _size(nbytes: float) -> str:
    """To three digits, in GB, MB or kB."""
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if nbytes >= unit), (1e3, "kB"))
    amount = nbytes / unit
    return f"{amount:.3g} {name}" if amount < 999.5 else f"{amount:,.0f} {name}"


def _prediction_json(model: str, p: Prediction) -> dict:
    return {
        "model": model, "plan": asdict(p.plan), "cluster": p.cluster.name, "batch_size": p.batch_size,
        "step_seconds": p.step_seconds, "throughput": p.throughput, "mfu": p.mfu, "memory_bytes": p.memory_bytes,
        "fits": p.fits, "breakdown": p.breakdown, "memory": [asdict(m) for m in p.memory],
    }  # fmt: skip


# calibrate


def _calibrate(options, console: Console) -> Outcome:
    check_writable(options.json)
    with progress_bar(console, *PROGRESS) as bar:
        task = bar.add_task("calibrating this machine", total=None)
        found = calibration(options.refresh, lambda what: bar.update(task, description=f"calibrating: {what}"))
    return Outcome([(options.json, asdict(found))], lambda console: _show_calibration(found, console))


def _show_calibration(found: Calibration, console: Console) -> None:
    compute, network = found.compute, found.network
    small = found.cluster().compute.matmul_seconds(1, 64, 64, 64)
    table = Table(title=f"{found.machine['processor']}, {found.machine['cores']} cores", show_header=False)
    table.add_row("matrix product 1024 x 1024 x 1024", f"{found.peak_flops / 1e9:.0f} GFLOP/s on one core")
    table.add_row("  64 x 64 x 64", f"{2 * 64**3 / small / 1e9:.0f} GFLOP/s")
    python = [s * 1e6 for _, s in compute["python"]]
    table.add_row("Python after a kernel call", f"{python[0]:.1f} us, {python[-1]:.1f} us after one that moves much")
    table.add_row("  around an instruction", f"{compute['instruction_seconds'] * 1e6:.2f} us")
    table.add_row("slower while all cores are busy", f"matrix product x{compute['matmul_contention']:.2f}, "
                  f"adding 16 MiB x{compute['contention'][-1][1]:.2f}")  # fmt: skip
    table.add_row("  two ranks on one core, against in turn", f"x{found.sharing:.2f}")
    table.add_row("  to go on after waiting for one another", f"{found.turn_seconds * 1e6:.0f} us")
    for name in ("all_reduce", "all_gather"):
        points = network["collectives"][name]
        table.add_row(f"{name}, 2 workers", ", ".join(f"{size >> 10} KiB {s * 1e6:.0f} us" for size, s in points[1::2]))
    for name in ("send", "receive"):
        table.add_row(name, ", ".join(f"{size >> 10} KiB {s * 1e6:.0f} us" for size, s in network[name][1::2]))
    print_table(console, table)
    if path := cache_path():
        console.print(f"kept in {path}")


if __name__ == "__main__":
    sys.exit(main())
