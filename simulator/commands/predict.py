"""`python -m simulator predict`: one training step of a model on a cluster."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from minidl import models
from minidl.commands.arguments import Refused, check_writable, count, print_table, progress_bar
from minidl.commands.driver import Outcome
from minidl.commands.plans import add_plan_options, chosen_plan
from minidl.models.catalog import BUILDERS
from minidl.units import duration, rate, scaled
from simulator import plots
from simulator.calibrate import calibration
from simulator.commands.progress import CALIBRATING, PROGRESS
from simulator.hardware import Cluster
from simulator.predict import Prediction, simulate

THIS_MACHINE = "this-machine"
PICTURES = (".png", ".svg")
ROUNDING = 1e-9  # of a step: a part of it that is smaller, or negative, is a difference of rounded numbers


def add_parser(commands) -> None:
    parser = commands.add_parser("predict", help="predict one training step of a model on a cluster")
    add = parser.add_argument
    add("model", metavar="MODEL", help=f"one of {', '.join(BUILDERS)}")
    add("--cluster", type=_cluster, default=THIS_MACHINE, metavar="NAME",
        help=f"a TOML file, or one of {_clusters()} (default: {THIS_MACHINE})")  # fmt: skip
    add("--precision", metavar="NAME", help="of activations and matrix products (default: the cluster's own)")
    add("--batch-size", type=count, required=True, metavar="N", help="samples of a global batch")
    add_plan_options(parser)
    add("--json", type=Path, metavar="PATH", help="also write the prediction here")
    add("--trace", type=Path, metavar="PATH", help="also write the timeline here, for Perfetto")
    add("--timeline", type=_picture, metavar="PATH", help="also draw the timeline: a .png or .svg file")
    parser.set_defaults(run=run)


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


def run(options, console: Console) -> Outcome:
    check_writable(options.json, options.trace, options.timeline)
    builder = models.builder(options.model)
    plan = chosen_plan(options)
    if options.cluster == THIS_MACHINE:
        if options.precision not in (None, "float32"):
            raise Refused(f"this machine trains in float32: --precision {options.precision} needs another --cluster")
        with progress_bar(console, *PROGRESS) as bar:
            task = bar.add_task(CALIBRATING, total=None)
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
    table.add_row("step", duration(p.step_seconds))
    for what, seconds in p.breakdown.items():
        shown = seconds if seconds > ROUNDING * p.step_seconds else 0.0
        table.add_row(f"  {what}", f"{duration(shown)} ({shown / p.step_seconds:.0%})")
    table.add_row("throughput", rate(p.throughput, "samples"))
    table.add_row("model FLOPs utilisation", f"{p.mfu:.1%}")
    fullest = max(p.memory, key=lambda memory: memory.total)
    fits = "fits" if p.fits else "does NOT fit"
    table.add_row(
        "memory, fullest device", f"{scaled(p.memory_bytes, 'B')} of {scaled(p.cluster.memory_bytes, 'B')}: {fits}"
    )
    for what, nbytes in asdict(fullest).items():
        table.add_row(f"  {what}", scaled(nbytes, "B"))
    return table


def _prediction_json(model: str, p: Prediction) -> dict:
    return {
        "model": model, "plan": asdict(p.plan), "cluster": p.cluster.name, "batch_size": p.batch_size,
        "step_seconds": p.step_seconds, "throughput": p.throughput, "mfu": p.mfu, "memory_bytes": p.memory_bytes,
        "fits": p.fits, "breakdown": p.breakdown, "memory": [asdict(m) for m in p.memory],
    }  # fmt: skip
