"""`python -m minidl train`: train a model, under any plan."""

import argparse
import math
import shlex
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

import minidl
from minidl.bench.host import cores
from minidl.commands.arguments import (
    Refused,
    check_device,
    check_writable,
    count,
    picture,
    positive,
    seed,
)
from minidl.commands.driver import Outcome
from minidl.commands.optimizers import OPTIMIZERS
from minidl.commands.own_model import HELP, blamed, model_name
from minidl.commands.pictures import drawn
from minidl.commands.plan_options import add_plan_options, chosen_plan, crowding
from minidl.commands.tasks import SOURCES, Task, task
from minidl.data.batches import batches_per_epoch
from minidl.monitor import Monitor
from minidl.parallel import Run, WorkerError, train
from minidl.parallel.checkpoint import is_checkpoint
from minidl.parallel.result import StepRecord
from minidl.ranks import leads
from minidl.units import duration

DEFAULT = "mlp-digits"
LOGS = {".csv": "csv", ".jsonl": "jsonl"}  # suffix -> the Monitor's argument
DESCRIPTION = """\
Train a model, spread over workers as the plan says, and test it. Without
options: one worker and a perceptron that learns 1,437 handwritten digits, at
least 95 % of 360 others right within seconds. Models named ...-digits are
trained on these, gpt-tiny and moe-tiny on a text that comes along, the others
on data in a folder: lenet and lstm-mnist on MNIST, cifar-cnn and resnet18-cifar
on CIFAR-10.
"""
EPILOG = f"""\
{HELP}
the number of workers is data × pipeline × tensor × context × expert. From the
same seed, every plan gives the same losses and parameters, up to floating-point
reordering.

examples:
  python -m minidl train
  python -m minidl train --data 2 --trace trace.json
      then open the trace in https://ui.perfetto.dev
  python -m minidl train --pipeline 2 --micro-batches 4 --timeline step.png
  python -m minidl train --model net.py:build --data 2
  python -m minidl train --model cnn-digits --pipeline 2 --micro-batches 4
  python -m minidl train --model lenet --folder mnist --download --epochs 2
  python -m minidl train --optimizer adamw --save digits.safetensors
  python -m minidl train --epochs 40 --save run.safetensors --save-every 100
  python -m minidl train --epochs 40 --save-every 100 --resume run.safetensors

Ctrl-C ends the training after the step under way, and what there is then is
written to the files, to --save all that --resume needs; pressed twice it ends
at once.
"""


def add_parser(commands) -> None:
    parser = commands.add_parser("train", help="train a model, under any plan", description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add("--model", type=model_name(SOURCES), default=DEFAULT, metavar="MODEL",
        help=f"FILE.py:BUILD, or one of {', '.join(SOURCES)} (default: {DEFAULT})")  # fmt: skip
    add("--folder", type=Path, metavar="DIR", help="where the data are, for a model that needs others than the digits")
    add("--download", action="store_true", help="fetch the data that are not in the folder yet")
    add("--batch-size", type=count, default=64, metavar="N", help="samples of a global batch (default: 64)")
    add("--drop-last", action="store_true", help="leave out the last batch of an epoch where it is short")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=count, default=20, metavar="N", help="passes over the data (default: 20)")
    length.add_argument("--steps", type=count, metavar="N", help="steps, instead of epochs")
    add("--optimizer", choices=OPTIMIZERS, default="sgd", metavar="NAME",
        help=f"one of {', '.join(OPTIMIZERS)}; sgd has momentum 0.9 (default: sgd)")  # fmt: skip
    rates = ", ".join(f"{rate:g} for {name}" for name, (rate, _) in OPTIMIZERS.items())
    add("--lr", type=positive, metavar="RATE", help=f"learning rate (default: {rates})")
    add("--seed", type=seed, default=0, metavar="N", help="of parameters, order of the data, dropout (default: 0)")
    add("--dtype", choices=("float32", "float64"), default="float32", help="of parameters and data (default: float32)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: one NVIDIA GPU, and one worker (default: cpu)")

    add_plan_options(parser)

    files = parser.add_argument_group("files")
    files.add_argument(
        "--save",
        type=Path,
        metavar="PATH",
        help="write the trained parameters, as .safetensors; with --save-every or --resume all that --resume needs, "
        "the parameters under the name model",
    )
    files.add_argument(
        "--save-every",
        type=count,
        metavar="N",
        help="write to --save, or the file of --resume, every N steps and at the end",
    )
    files.add_argument(
        "--resume",
        type=Path,
        metavar="PATH",
        help="go on from a file of --save-every, or of --save after Ctrl-C, up to --steps or --epochs in all, under "
        "the same options (those of the plan may differ); without --save the file is written anew",
    )
    files.add_argument("--trace", type=Path, metavar="PATH", help="write who did what when, for Perfetto or Chrome")
    files.add_argument(
        "--timeline", type=picture, metavar="PATH", help="draw the last step that is traced: a .png or .svg file"
    )
    files.add_argument(
        "--log", type=Path, metavar="PATH", help="write each step: a .csv or .jsonl file, else a folder for TensorBoard"
    )
    files.add_argument("--json", type=Path, metavar="PATH", help="write the results for a program to read")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace, console: Console) -> Outcome:
    """Train as asked."""
    log = {} if chosen.log is None or not leads() else {LOGS.get(chosen.log.suffix, "tensorboard"): chosen.log}
    checkpoints = bool(chosen.save_every or chosen.resume)
    chosen.save = chosen.save or chosen.resume
    go_on = f"go on with the same options and --resume {shlex.quote(str(chosen.save))}"
    if chosen.save_every and not chosen.save:
        raise Refused("--save-every needs a file to write to: --save, or --resume to go on with that one")
    if chosen.save and not checkpoints and is_checkpoint(chosen.save):
        raise Refused(f"{chosen.save} is a checkpoint: {go_on}, or save to another file")
    check_writable(chosen.save, chosen.trace, chosen.timeline, chosen.json, log.get("csv"), log.get("jsonl"))
    plan = chosen_plan(chosen)
    check_device(chosen.device)
    asked = task(chosen.model, plan, chosen.folder, chosen.download)
    steps = chosen.steps or chosen.epochs * batches_per_epoch(len(asked.train_set), chosen.batch_size, chosen.drop_last)
    default_rate, make = OPTIMIZERS[chosen.optimizer]
    lr = chosen.lr or default_rate
    stopped = False
    try:
        with Monitor(append=chosen.resume is not None, terminal=False, **log) as monitor, blamed(asked.file):
            result = train(
                asked.build, asked.train_set, plan, optimizer=lambda parameters: make(parameters, lr=lr),
                loss=asked.loss, batch_size=chosen.batch_size, steps=steps, seed=chosen.seed,
                drop_last=chosen.drop_last, evaluate=asked.test_set, dtype=chosen.dtype,
                device=chosen.device, callbacks=[until_it_fails(monitor)], progress=True,
                save=chosen.save, save_every=chosen.save_every, save_complete=checkpoints, resume=chosen.resume,
            )  # fmt: skip
    except KeyboardInterrupt as interrupt:
        result = getattr(interrupt, "run", None)
        if result is None or not result.state_dict():  # nothing was done, or it is wanted at once
            raise
        stopped = True
    except WorkerError as error:
        if error.run.saved_step is None:
            raise
        where = f"The checkpoint after step {error.run.saved_step} is whole: {go_on}"
        raise WorkerError(f"{str(error).rstrip()}\n\n{where}", error.rank) from error
    except (OSError, ValueError, TypeError) as error:
        result = getattr(error, "run", None)
        if result is None or error is not result.save_error:
            raise

    def save(path: Path) -> None:
        if not (stopped or checkpoints):
            minidl.save(result.state_dict(), path)
        elif result.save_error is not None:
            raise result.save_error

    def figure():
        from minidl import plots  # loaded late: matplotlib takes as long as the rest

        last = result.trace.steps()[-1]
        where = " · cuda" if chosen.device == "cuda" else ""
        title = f"{chosen.model} · {plan}{where}: step {last.events[0].step}, measured, {duration(last.step_seconds)}"
        return plots.timeline_figure([(title, last)])

    facts = summary(chosen, lr, result, asked)
    return Outcome(
        files=[
            (chosen.save, save),
            (chosen.trace, result.trace.save),
            *drawn(figure, chosen.timeline),
            (chosen.json, facts),
        ],
        show=lambda console: show(console, chosen, result),
        code=0 if math.isfinite(facts["final_loss"]) else 1,
        stopped=f"step {facts['steps']} of {steps}" if stopped else None,
        go_on=go_on if stopped and chosen.save and not result.save_error else None,
    )


def until_it_fails(log: Callable[[StepRecord], None]) -> Callable[[StepRecord], None]:
    """`log`, but given up with a warning when it cannot be written: a disk that fills up ends no training."""
    failed = False

    def call(record: StepRecord) -> None:
        nonlocal failed
        if not failed:
            try:
                log(record)
            except OSError as error:
                failed = True
                warnings.warn(f"no log from step {record.step} on: {error}", stacklevel=2)

    return call


def show(console: Console, chosen: argparse.Namespace, result: Run) -> None:
    """What was trained, what came out, and what is to be said of it."""
    console.print(Text(chosen.model, style="bold"))
    if chosen.device == "cuda":
        name = minidl.cuda.get_device_name()
        emulated = ": threads run one after another, these are not the times of a GPU" if name == "emulated" else ""
        console.print(f"device cuda, {name}{emulated}", highlight=False)
    console.print(result, highlight=False)
    if crowded := crowding(result.plan.workers, cores()):
        console.print(crowded, highlight=False)
    if not math.isfinite(result.losses[-1]):
        console.print("The loss is no longer a number: try a smaller --lr.")


def summary(chosen: argparse.Namespace, lr: float, result: Run, asked: Task) -> dict[str, object]:
    """What --json writes; times in seconds. No test_accuracy unless targets are labels, no tokens but of sequences.

    After Ctrl-C there is no test. first_step: that of the first loss, not 0 after --resume.
    """
    test = result.evaluations[-1] if result.evaluations else None
    return {
        "model": chosen.model,
        "plan": asdict(result.plan),
        "workers": result.plan.workers,
        "batch_size": chosen.batch_size,
        "first_step": result.first_step,
        "steps": result.first_step + len(result.losses),
        "optimizer": chosen.optimizer,
        "lr": lr,
        "seed": chosen.seed,
        "dtype": chosen.dtype,
        "device": chosen.device,
        "final_loss": result.losses[-1],
        "test_loss": test and test.loss,
        "test_accuracy": test.accuracy if test and asked.labels else None,
        "step_seconds": result.step_seconds,
        "samples_per_second": result.throughput,
        "tokens_per_second": result.tokens_per_second,
        "bubble_fraction": result.trace.bubble_fraction,
        "exposed_communication_seconds": result.trace.exposed_communication,
        "losses": result.losses,
    }
