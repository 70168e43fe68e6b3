"""`python -m simulator`: compare, predict, calibrate."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from minidl import models
from minidl.models.catalog import BUILDERS
from minidl.parallel import Plan, WorkerError
from minidl.parallel.plan import SCHEDULES
from simulator import plots
from simulator.calibrate import cache_path, calibration, drift
from simulator.compare import Comparison, compare
from simulator.hardware import Cluster
from simulator.predict import Prediction, simulate

STALE = 0.25  # a machine that has become so much faster or slower is calibrated again before a comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for a wrong argument, 1 for a run that failed, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    console = Console()
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        options.run(options, console)
        return 0
    except (ValueError, OSError) as error:
        print(f"python -m simulator: {error}", file=sys.stderr)
        return 2
    except WorkerError as error:
        print(f"python -m simulator: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("python -m simulator: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulator", description="Predict how training scales.")
    commands = parser.add_subparsers(required=True, metavar="command")

    one = commands.add_parser("compare", help="train here under several plans, simulate the same programs, compare")
    one.add_argument("--out", type=Path, default=Path("."), help="folder for compare.png, .svg, .json and the traces")
    one.add_argument("--refresh", action="store_true", help="calibrate this machine again first")
    one.set_defaults(run=_compare)

    two = commands.add_parser("predict", help="predict one training step of a model on a cluster")
    two.add_argument("model", help=f"one of {', '.join(BUILDERS)}")
    two.add_argument("--cluster", default="this-machine", metavar="NAME",
                     help=f"this-machine, a TOML file, or one of {', '.join(Cluster.catalog())}")  # fmt: skip
    two.add_argument("--precision", help="of activations and matrix products, by default the cluster's own")
    for axis in ("data", "tensor", "pipeline", "micro-batches"):
        two.add_argument(f"--{axis}", type=int, default=1, metavar="N")
    two.add_argument("--schedule", default="1f1b", choices=SCHEDULES)
    two.add_argument("--batch-size", type=int, required=True, metavar="N", help="samples of a global batch")
    two.add_argument("--json", type=Path, metavar="PATH", help="also write the prediction here")
    two.add_argument("--trace", type=Path, metavar="PATH", help="also write the timeline here, for Perfetto")
    two.add_argument("--timeline", type=Path, metavar="PATH", help="also draw the timeline: a .png or .svg file")
    two.set_defaults(run=_predict)

    three = commands.add_parser("calibrate", help="measure this machine, and say what was found")
    three.add_argument("--refresh", action="store_true", help="measure again even if there is a cached calibration")
    three.add_argument("--json", type=Path, metavar="PATH", help="also write everything that was measured here")
    three.set_defaults(run=_calibrate)
    return parser


# compare


def _compare(options, console: Console) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    _check_writable(options.out / "compare.json")
    began = time.monotonic()
    with _progress(console) as bar:
        task = bar.add_task("calibrating this machine", total=None)

        def calibrating(what: str) -> None:
            bar.update(task, description=f"calibrating: {what}")

        found = calibration(options.refresh, calibrating)
        if abs(drift(found) - 1) > STALE:
            found = calibration(True, calibrating)
        result = compare(
            found, lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
        )
        bar.update(task, description="drawing", completed=bar.tasks[0].total)
        paths = result.save(options.out)
        pictures = [options.out / "compare.png", options.out / "compare.svg"]
        plots.save(plots.comparison_figure(result), *pictures)
    console.print(_comparison_table(result))
    _print_errors(result, console)
    console.print(f"wrote {', '.join(str(p) for p in (*pictures, paths[0]))} and {len(paths) - 1} traces (trace-*.json)"
                  f" after {time.monotonic() - began:.0f} s")  # fmt: skip


def _comparison_table(result: Comparison) -> Table:
    table = Table(
        title="The same programs, measured / simulated", caption="* more workers than cores", padding=(0, 0, 0, 1)
    )
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
            unfitted = result.mean_error(oversubscribed, unfitted=True)
            console.print(f"mean absolute error of the step, {which}: {error:.1%} "
                          f"(without the constant fitted to one-worker runs: {unfitted:.1%})")  # fmt: skip
    drifts = [r.drift for r in result.rows]
    console.print(f"the machine was x{min(drifts):.2f} to x{max(drifts):.2f} as slow as when it was calibrated, by a "
                  "fixed probe between the runs; simulated times are scaled by it")  # fmt: skip


# predict


def _predict(options, console: Console) -> None:
    for path in (options.json, options.trace, options.timeline):
        _check_writable(path)
    builder = models.builder(options.model)
    plan = Plan(
        data=options.data, tensor=options.tensor, pipeline=options.pipeline, micro_batches=options.micro_batches,
        schedule=options.schedule,
    )  # fmt: skip
    if options.cluster == "this-machine":
        if options.precision not in (None, "float32"):
            raise ValueError(f"this machine trains in float32: --precision {options.precision} needs another --cluster")
        with _progress(console) as bar:
            task = bar.add_task("calibrating this machine", total=None)
            cluster = calibration(progress=lambda what: bar.update(task, description=f"calibrating: {what}")).cluster()
    else:
        cluster = Cluster.load(options.cluster, devices=plan.workers, precision=options.precision)
    prediction = simulate(builder, plan, cluster, options.batch_size)
    console.print(_prediction_table(options.model, prediction))
    if options.json:
        options.json.write_text(json.dumps(_prediction_json(options.model, prediction), indent=1))
    if options.trace:
        prediction.trace.save(options.trace)
    if options.timeline:
        title = f"{options.model}: {plan} (simulated)"
        plots.save(plots.timeline_figure([(title, prediction.trace)]), options.timeline)


def _prediction_table(model: str, p: Prediction) -> Table:
    table = Table(title=f"Predicted: {model}, {p.plan}, on {p.plan.workers} x {p.cluster.name}", show_header=False)
    table.add_row("step", f"{p.step_seconds:.4g} s")
    for what, seconds in p.breakdown.items():
        table.add_row(f"  {what}", f"{seconds:.4g} s ({seconds / p.step_seconds:.0%})")
    table.add_row("throughput", f"{p.throughput:.4g} samples/s")
    table.add_row("model FLOPs utilisation", f"{p.mfu:.1%}")
    fullest = max(p.memory, key=lambda memory: memory.total)
    fits = "fits" if p.fits else "does NOT fit"
    table.add_row("memory, fullest device",
                  f"{p.memory_bytes / 1e9:.3g} GB of {p.cluster.memory_bytes / 1e9:.3g}: {fits}")  # fmt: skip
    for what, nbytes in asdict(fullest).items():
        table.add_row(f"  {what}", f"{nbytes / 1e9:.3g} GB")
    return table


def _prediction_json(model: str, p: Prediction) -> dict:
    return {
        "model": model, "plan": asdict(p.plan), "cluster": p.cluster.name, "batch_size": p.batch_size,
        "step_seconds": p.step_seconds, "throughput": p.throughput, "mfu": p.mfu, "memory_bytes": p.memory_bytes,
        "fits": p.fits, "breakdown": p.breakdown, "memory": [asdict(m) for m in p.memory],
    }  # fmt: skip


# calibrate


def _calibrate(options, console: Console) -> None:
    _check_writable(options.json)
    with _progress(console) as bar:
        task = bar.add_task("calibrating this machine", total=None)
        found = calibration(options.refresh, lambda what: bar.update(task, description=f"calibrating: {what}"))
    compute, network = found.compute, found.network
    table = Table(title=f"{found.machine['processor']}, {found.machine['cores']} cores", show_header=False)
    table.add_row("matrix product 1024 x 1024 x 1024", f"{found.peak_flops / 1e9:.0f} GFLOP/s on one core")
    table.add_row("  64 x 64 x 64", f"{2 * 64**3 / compute['gemm_seconds'][62] / 1e9:.0f} GFLOP/s")
    table.add_row("Python around a kernel call", f"{compute['dispatch_seconds'] * 1e6:.2f} us")
    table.add_row("  around an instruction", f"{compute['instruction_seconds'] * 1e6:.2f} us")
    table.add_row("slower while all cores are busy", f"matrix product x{compute['matmul_contention']:.2f}, "
                  f"adding 16 MiB x{compute['contention'][-1][1]:.2f}")  # fmt: skip
    table.add_row("  two ranks on one core, against in turn", f"x{found.sharing:.2f}")
    for name in ("all_reduce", "all_gather"):
        points = network["collectives"][name]
        table.add_row(f"{name}, 2 workers", ", ".join(f"{size >> 10} KiB {s * 1e6:.0f} us" for size, s in points[1::2]))
    for name in ("send", "receive"):
        table.add_row(name, ", ".join(f"{size >> 10} KiB {s * 1e6:.0f} us" for size, s in network[name][1::2]))
    table.add_row("training factor (fitted to one-worker runs)", f"{compute['training_factor']:.3f}")
    console.print(table)
    console.print(f"kept in {cache_path()}")
    if options.json:
        options.json.write_text(json.dumps(asdict(found), indent=1))


# shared


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def _check_writable(path: Path | None) -> None:
    """Refuse before the work, not after it, to write where nothing can be written."""
    if path is not None:
        existed = path.exists()
        with open(path, "a"):
            pass
        if not existed:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
