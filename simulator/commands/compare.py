"""`python -m simulator compare`: train here under several plans, simulate the same programs, compare."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console

from minidl.commands.arguments import check_device, check_writable
from minidl.commands.driver import Outcome
from minidl.commands.own_model import model_name
from minidl.commands.pictures import drawn, pictures
from minidl.commands.plan_options import fields_in_words
from minidl.commands.progress import Tell, progress
from minidl.parallel import Plan, forkserver
from simulator.calibrate import calibration, drift, quick
from simulator.calibration import Calibration
from simulator.commands.comparison_table import show_comparison
from simulator.commands.shared_output import say, say_written
from simulator.compare import compare
from simulator.experiments import CNN, MODELS, PERCEPTRON, QUICK_ROUNDS, ROUNDS, experiments
from simulator.measure import FULL, Effort, check_measurable
from simulator.measured_devices import MEASURED_DEVICES
from simulator.plans_to_try import FEW_PLANS, PLANS, QUICK_PLANS

STALE = 0.25  # a machine that has become so much faster or slower is calibrated again before a comparison
DESCRIPTION = """\
Train a model here under several plans, simulate the same programs on a
calibrated model of this machine, and set the two side by side: in a table, in
compare.png and .svg, in compare.json for a program to read, and as a trace of
each run (open one in https://ui.perfetto.dev). Nothing that is measured of a
training goes into the simulation. The first comparison also calibrates this
machine, as `python -m simulator calibrate` does. --device cuda does all this
on the machine's GPU, under plans of one worker.
"""
EPILOG = f"""\
a plan is written with the fields of minidl.parallel.Plan:
{fields_in_words()}
Its workers are data × pipeline × tensor × context × expert. One worker always
comes first: speedups refer to it.

examples:
  python -m simulator compare            {len(PLANS)} plans of {PERCEPTRON}, {len(FEW_PLANS)} of {CNN}
  python -m simulator compare --quick    {len(QUICK_PLANS)} plans, each run once
  python -m simulator compare --plan data=2 --plan "data=2 sharding=optimizer"
  python -m simulator compare --model lstm-digits --model vae-digits --out here
  python -m simulator compare --model gpt-tiny --quick \\
      --plan "data=2 pipeline=2 micro_batches=2 schedule=gpipe"
"""


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="train here under several plans, simulate the same programs, compare",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("--quick", action="store_true",
        help=f"{len(QUICK_PLANS)} plans, each run once instead of {ROUNDS} times; where this machine is not calibrated "
        "yet, that is done for them alone, and not kept")  # fmt: skip
    add("--model", action="append", type=model_name(MODELS), default=[], metavar="NAME",
        help=f"a model to train, may be repeated: {', '.join(MODELS)}, or your own FILE.py:BUILD as `python -m minidl "
        f"train` takes it (default: {PERCEPTRON}, a perceptron, and without --quick and --plan {CNN})")  # fmt: skip
    add("--plan", action="append", type=_plan, default=[], metavar='"FIELD=VALUE ..."',
        help=f"a plan to try, may be repeated (default: those of {len(PLANS)} that fit the model)")  # fmt: skip
    add("--out", type=Path, default=Path(), metavar="DIR",
        help="folder for compare.png, .svg, .json and the traces (default: here)")  # fmt: skip
    add("--device", choices=MEASURED_DEVICES, default="cpu",
        help="what to train on; cuda: the NVIDIA GPU of this machine, with one worker (default: cpu)")  # fmt: skip
    add("--refresh", action="store_true", help="calibrate this machine again first")
    parser.set_defaults(run=run)


def _plan(text: str) -> Plan:
    try:
        return Plan.parse(text)
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(options, console: Console) -> Outcome:
    check_device(options.device)
    check_measurable(options.device)
    chosen = experiments(options.model, options.plan, options.quick, options.device)
    paths, rows = pictures(options.out, "compare"), options.out / "compare.json"
    check_writable(rows, *paths)
    began = time.monotonic()
    profiles = (experiment.profile(plan, options.device) for experiment in chosen for plan in experiment.plans)
    effort = quick(profiles, options.device) if options.quick else FULL
    with progress() as tell, forkserver():
        # matplotlib takes as long to load as what the fork server imports meanwhile; nothing is timed yet
        from simulator import figures

        found = fitting_calibration(options.refresh, tell, effort, options.device)
        result = compare(found, tell, chosen, QUICK_ROUNDS if options.quick else ROUNDS)
    traces = [(options.out / file, trace.save) for file, trace in result.traces().items()]

    def show(console: Console) -> None:
        show_comparison(result, console)
        if options.plan and all(plan.workers > 1 for plan in options.plan):
            say(console, "One worker, to which speedups refer, was added to the plans.")
        seconds = time.monotonic() - began
        say_written(console, *paths, rows, more=f" and {len(traces)} traces (trace-*.json) after {seconds:.0f} s")

    return Outcome([(rows, result.as_dict()), *traces, *drawn(lambda: figures.comparison_figure(result), *paths)], show)


def fitting_calibration(refresh: bool, tell: Tell, effort: Effort, device: str = "cpu") -> Calibration:
    """That of the cache, unless `refresh`; measured again where the machine has become much faster or slower."""
    calibrated = False

    def calibrating(phase: str) -> None:
        nonlocal calibrated
        calibrated = True
        tell(f"calibrating: {phase}")

    found = calibration(refresh, calibrating, effort, device)
    if not calibrated:
        alone, _ = drift(found)
        if abs(alone - 1) > STALE:
            found = calibration(True, calibrating, effort, device)
    return found
