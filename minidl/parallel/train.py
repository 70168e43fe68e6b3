"""train: the one way in which a model is trained, whatever the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from os import PathLike

from minidl.parallel.checker import check
from minidl.parallel.contracts import callback_list
from minidl.parallel.plan import Plan
from minidl.parallel.prepare import Builder, prepare
from minidl.parallel.program import Program, edited
from minidl.parallel.request import Request
from minidl.parallel.result import Run, StepRecord
from minidl.parallel.training import Training


def train(
    build: Builder,
    dataset,
    plan: Plan | None = None,
    *,
    optimizer: Callable,
    loss,
    batch_size: int,
    steps: int,
    seed: int = 0,
    drop_last: bool = False,
    evaluate=None,
    evaluate_every: int | None = None,
    callbacks: Iterable[Callable[[StepRecord], None]] = (),
    lr_schedule: Callable[[int], float] | None = None,
    clip_norm: float | None = None,
    dtype="float32",
    device: str = "cpu",
    timeout: float | None = None,
    trace_steps: int = 200,
    save: str | PathLike | None = None,
    save_every: int | None = None,
    save_complete: bool = True,
    resume: str | PathLike | None = None,
    progress: bool | None = None,
    edit: Callable[[Program], Program] | None = None,
) -> Run:
    """Train the chain that `build(mesh)` returns on `dataset` for `steps` steps, spread over workers as `plan` says.

    optimizer: a function of parameters that returns an Optimizer. batch_size: samples of a global batch; the last one
    of an epoch may be short, unless `drop_last` leaves it out. evaluate: a data set, evaluated every `evaluate_every`
    steps and after the last. callbacks: each is called in this process with every StepRecord, in order, also with
    those that still come after one has raised. lr_schedule: step -> factor on the learning rates. clip_norm: bound on
    the norm of the whole gradient. dtype: of parameters and inputs. device: "cpu", or "cuda" for one worker on a GPU;
    its trace has a lane of copies and is in the GPU's own time. timeout: see `launch`. trace_steps: how many of
    the last steps the trace holds.

    save: a file for a checkpoint, written every `save_every` steps, when the training is stopped and, unless
    `save_complete` is false, when all steps are done. resume: one to go on from, as the run that wrote it would have
    done; without save the new ones replace it. `steps` counts from its beginning, and must be more than it has done.
    The plan may be another one: under the same plan the numbers are the same to the last bit, under another up to
    floating-point order. The model, the data and all else that makes the numbers must be the same. Running statistics
    are each replica's own, and a replica that the file lacks begins with those of the first, so a model that has them
    goes on otherwise under another number of replicas. `minidl.load(path)["model"]` has the parameters.

    progress: show on standard error how far the training is: its step, loss and time of a step. None: on a terminal, in
    a line that is gone at the end, and in a notebook, but not where another display of rich is live. True: elsewhere,
    too, in ten lines. False: nowhere.

    edit: changes the program of training before it is checked and run, as for `simulate` (`Program.edit`).

    From the same seed, every plan gives the losses and parameters of the one-worker run, up to floating-point order.
    Raises ValueError for arguments that do not fit together, ProgramError for an edited program that is wrong, and
    OSError for a file that cannot be written, before a process starts; WorkerError as `launch` does. Ctrl-C, or a
    callback that raises an exception, ends the training after the step under way: the checkpoint is written, and
    KeyboardInterrupt or that exception raised. Ctrl-C pressed twice ends it at once. Whatever ends it, the exception
    carries as its `run` all there is: losses, times and evaluations, and where the workers could stop after a step also
    the trace and the parameters. A checkpoint that cannot be written is a warning; at the end of all steps it is an
    error.

    Where mpiexec has started the ranks, each calls `train` and returns the Run; the first alone shows the progress,
    calls the callbacks and writes the file.
    """
    request = Request(
        build=build, dataset=dataset, plan=Plan() if plan is None else plan, optimizer=optimizer, loss=loss,
        batch_size=batch_size, steps=steps, seed=seed, drop_last=drop_last, evaluate=evaluate,
        evaluate_every=evaluate_every, lr_schedule=lr_schedule, clip_norm=clip_norm, dtype=dtype,
        trace_steps=trace_steps, device=device, save=save, save_every=save_every, resume=resume,
    )  # fmt: skip
    if not (progress is None or isinstance(progress, bool)):
        raise TypeError(f"progress must be True, False or None, not {progress!r}")
    callbacks = callback_list(callbacks)
    prepared = prepare(
        build, request.plan, batch_size, example=request.example, loss=loss, optimizer=optimizer,
        clip=clip_norm is not None, dtype=request.dtype, device=request.device,
    )  # fmt: skip
    request.check_last_batches(prepared.model, prepared.profile.input)
    prepared = replace(prepared, training=edited(prepared.training, edit))
    check(prepared.training)
    check(prepared.evaluation)
    return Training(request, prepared, callbacks).run(timeout, progress, save_complete)
