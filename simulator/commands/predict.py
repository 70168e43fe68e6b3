"""`python -m simulator predict`: one training step of a model on a cluster."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from minidl import models
from minidl.bench.host import cores
from minidl.commands.arguments import Refused, amount, check_writable, count, picture
from minidl.commands.driver import EXIT_CODES, Outcome
from minidl.commands.optimizers import OPTIMIZERS
from minidl.commands.output import print_table
from minidl.commands.own_model import HELP, OwnModel, blamed, model_name
from minidl.commands.pictures import drawn
from minidl.commands.plan_options import add_plan_options, chosen_plan
from minidl.commands.progress import progress
from minidl.display import fact_table
from minidl.models.builders import BUILDERS
from minidl.parallel.chain_profile import sequence_length
from minidl.parallel.plan import Plan
from minidl.parallel.prepare import prepare
from minidl.units import DAY, counted
from simulator import report
from simulator.commands.cluster_option import THIS_MACHINE, cluster_name, clusters, this_machine
from simulator.commands.shared_output import say, say_crowding
from simulator.hardware import Cluster
from simulator.predict import simulate
from simulator.prediction import Prediction
from simulator.stacks import Stack

OPTIMIZER = "adam"
DESCRIPTION = """\
Predict one training step of a model on a cluster: its time and where that goes,
what a device holds in memory, and for what all of this is predicted.
"""
EPILOG = f"""\
examples:
  python -m simulator predict mlp-digits --data 2 --batch-size 64
  python -m simulator predict gpt3-175b --cluster dgx-a100 --devices 1024 \\
      --pipeline 16 --tensor 8 --micro-batches 24 --batch-size 192 \\
      --tokens 300e9 --timeline step.png
  python -m simulator predict gpt2-small --cluster tpu-v4 --data 8 \\
      --sequence 512 --layers 24 --batch-size 64
  python -m simulator predict llama/config.json --cluster dgx-h100-80g \\
      --stack torchtitan --devices 64 --sharding parameters --batch-size 64

{HELP}
{EXIT_CODES}
1 also where the plan does not fit into the memory of the devices; all that was
asked for is then printed and written, and by how much it does not fit.
"""


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "predict", help="predict one training step of a model on a cluster", description=DESCRIPTION, epilog=EPILOG
    )
    add = parser.add_argument
    add("model", type=model_name(BUILDERS, configs=True), metavar="MODEL",
        help="FILE.py:BUILD, the path of a config.json as Hugging Face's models have it, or one of "
        f"{', '.join(BUILDERS)}")  # fmt: skip
    add("--layers", type=count, metavar="N", help="layers of the model, where it has a choice (default: its own)")
    add("--sequence", type=count, metavar="N", help="tokens of a sample, of a language model (default: its own)")
    add("--batch-size", type=count, required=True, metavar="N", help="samples of a global batch")
    add("--tokens", type=amount, metavar="N", help="also say how long it takes to train on so many: 300e9, or 300B")
    add("--optimizer", choices=OPTIMIZERS, default=OPTIMIZER, metavar="NAME",
        help=f"one of {', '.join(OPTIMIZERS)} (default: {OPTIMIZER})")  # fmt: skip

    cluster = parser.add_argument_group("cluster")
    cluster.add_argument("--cluster", type=cluster_name, default=THIS_MACHINE, metavar="NAME",
                         help=f"one of {clusters()} (default: {THIS_MACHINE}), or a TOML file (how to write one: "
                         "README.md beside the catalog, in simulator/catalog/)")  # fmt: skip
    cluster.add_argument("--devices", type=count, metavar="N",
                         help="how many there are; with --data the plan may use fewer (default: as many as the plan "
                         "has workers)")  # fmt: skip
    cluster.add_argument("--stack", type=stack_name, default="default", metavar="NAME",
                         help=f"the software that runs it: one of {', '.join(Stack.names())} (default: default, what "
                         "minidl does), or a TOML file")  # fmt: skip

    add_plan_options(parser, data="as many as fill --devices, else 1", precision="the usual one on the cluster")

    files = parser.add_argument_group("files")
    files.add_argument("--json", type=Path, metavar="PATH", help="also write the prediction here")
    files.add_argument("--trace", type=Path, metavar="PATH", help="also write the timeline here, for Perfetto")
    files.add_argument("--timeline", type=picture, metavar="PATH", help="also draw the timeline: a .png or .svg file")
    files.add_argument("--memory", type=picture, metavar="PATH",
                       help="also draw the program's arrays on devices over a step, by kind, without what the stack "
                       "has beside them or in other precisions: a .png or .svg file")  # fmt: skip
    parser.set_defaults(run=run)


def run(options, console: Console) -> Outcome:
    """Predict as asked."""
    check_writable(options.json, options.trace, options.timeline, options.memory)
    plan = _plan(options)
    changes = {name: given for name in ("layers", "sequence") if (given := getattr(options, name)) is not None}
    rate, make = OPTIMIZERS[options.optimizer]
    settings: dict[str, Any] = {"optimizer": lambda parameters: make(parameters, lr=rate)}
    own = OwnModel(options.model) if ":" in options.model else None
    with blamed(own.path if own else None):
        if own is None:
            build = models.builder(options.model, **changes)
        elif changes:
            raise Refused(f"{options.model} is built as its file says: no --{' and no --'.join(changes)}")
        else:
            build = own.build
            settings["example"], settings["loss"] = own.sample_and_loss(plan)
        if options.cluster == THIS_MACHINE:  # what does not fit together is refused before it is measured
            profile = prepare(build, plan, options.batch_size, **settings).profile
            _check_tokens(options, sequence_length(profile.input))
        p = simulate(build, plan, _load(options, plan), options.batch_size, stack=options.stack, **settings)
    _check_tokens(options, p.sequence)
    rows = list(report.rows(p, options.tokens))
    title = report.title(p, options.model)

    def figure():
        from minidl import plots  # loaded late: matplotlib takes as long as the rest

        drawn = len(p.trace.ranks)
        others = f"; {drawn} of {plan.workers:,} ranks: the others do the same" if drawn < plan.workers else ""
        return plots.timeline_figure([(title + others, p.trace)])

    def show(console: Console) -> None:
        console.print(Text(title, style="bold"))
        print_table(console, fact_table(rows))
        say_crowding(console, plan.workers, p.cluster)
        if not p.fits:
            say(console, report.misfit(p), report.remedy(p))

    files = (
        (options.json, _document(options.model, p, options.tokens) if options.json else {}),
        (options.trace, p.trace.save),
        (options.memory, p.program.draw_memory),
        *drawn(figure, options.timeline),
    )
    return Outcome(files, show, code=0 if p.fits else 1)


def _plan(options) -> Plan:
    """The plan; without --data it has as many replicas as fill the devices. Refused where they are too few."""
    devices, data = options.devices, options.data
    precision = options.precision or _usual_precision(options.cluster)
    one = chosen_plan(options, data=1, precision=precision)
    if data is None:
        data = max(devices // one.workers, 1) if devices else 1
    plan = replace(one, data=data)
    if devices is None:
        return plan
    if plan.workers > devices:
        raise Refused(f"the plan {plan} needs {plan.workers:,} devices: --devices gives {devices:,}")
    if options.data is None:
        if devices % one.workers:
            raise Refused(
                f"--devices {devices} is not divisible by "
                f"{' × '.join(f'{axis}={size}' for axis, size in one.axes.items())} "
                f"(= {one.workers}): say how many replicas there are with --data"
            )
        try:
            plan.check_batch(options.batch_size)
        except ValueError as error:
            raise Refused(f"{error}; data={data} fills --devices {devices}") from None
    return plan


def stack_name(text: str) -> str:
    """The type of an argument that names a stack, or a file of one."""
    if text not in Stack.names() and not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no stack {text!r}: neither a file nor one of {', '.join(Stack.names())}")
    return text


def _check_tokens(options, sequence: int | None) -> None:
    if options.tokens and not sequence:
        raise Refused(f"--tokens: {options.model} does not read sequences of tokens")


def _usual_precision(cluster: str) -> str:
    return "float32" if cluster == THIS_MACHINE else Cluster.load(cluster).usual_precision


def _load(options, plan: Plan) -> Cluster:
    """The cluster, with as many devices as were asked for."""
    if options.cluster != THIS_MACHINE:
        return Cluster.load(options.cluster, devices=options.devices or plan.workers)
    if plan.precision != "float32":
        raise Refused(f"this machine trains in float32: --precision {plan.precision} needs another --cluster")
    if options.devices and options.devices > cores():
        raise Refused(
            f"this machine has {counted(cores(), 'core')}: --devices {options.devices} needs another --cluster"
        )
    with progress() as tell:
        return this_machine(tell)


def _document(model: str, p: Prediction, tokens: float | None) -> dict[str, object]:
    """What --json writes; times in seconds but `days`; null for tokens where samples are no sequences of them."""
    seconds = None if tokens is None else p.seconds_for(tokens)
    return {
        "model": model, "plan": asdict(p.plan), "cluster": p.cluster.name, "devices": p.cluster.devices,
        "batch_size": p.batch_size, "assumptions": p.assumptions, "step_seconds": p.step_seconds,
        "first_step_seconds": p.first_step_seconds, "evaluation_seconds": p.evaluation_seconds,
        "throughput": p.throughput, "tokens_per_second": p.tokens_per_second, "tokens": tokens, "seconds": seconds,
        "days": seconds and seconds / DAY, "mfu": p.mfu, "memory_bytes": p.memory_bytes,
        "device_memory_bytes": p.cluster.memory_bytes, "fits": p.fits, "breakdown": p.breakdown,
        "memory": [asdict(m) for m in p.memory], "stack": p.stack.key, "pace": p.pace,
        "placement": [asdict(axis) for axis in p.placement.axes],
        "ways_to_fit": [{"changes": way.changes, "memory_bytes": way.memory_bytes} for way in p.ways_to_fit],
    }  # fmt: skip
