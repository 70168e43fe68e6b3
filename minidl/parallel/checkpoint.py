"""The file from which a training goes on: what it says of the run, written whole, compared with the run to come."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from os import PathLike
from pathlib import Path

from minidl import io
from minidl.nn.module import Module
from minidl.parallel.contracts import make_optimizer
from minidl.parallel.plan import Plan
from minidl.parallel.rank_state import RankState, merge
from minidl.ranks import leads
from minidl.validation import check_count

KIND = "minidl checkpoint 1"
UNWRITABLE = (OSError, ValueError, TypeError)  # what `minidl.save` raises
Schedule = Callable[[int], float]


def describe(model: Module, optimizer: Callable, plan: Plan, **settings) -> dict:
    """What must be the same for a training to go on, as the file has it; and the plan, which need not be.

    model: the chain on meta, with the names of its parameters. settings: seed, batch_size and the like.
    """
    parameters = list(model.parameters())
    made = make_optimizer(optimizer, parameters) if parameters else None
    groups = made.state_dict()["param_groups"] if made else []
    return {
        "kind": KIND,
        **settings,
        "plan": asdict(plan) | {"schedule": plan.schedule_name},
        "optimizer": {"name": type(made).__name__, "param_groups": groups},
    }


class CheckpointFile:
    """Writes a checkpoint when what all ranks hold after a step has come.

    run: what `describe` gave. saved_step: how many steps had been done when it was written last, None before. error:
    why the last one could not be written, None if it was. The older one is replaced when the new one is whole. Of
    several processes that hold the same, the one that leads writes.
    """

    def __init__(self, path: Path, run: dict, workers: int, lr_schedule: Schedule | None):
        self.path, self.run, self.workers, self.lr_schedule = path, run, workers, lr_schedule
        self.saved_step: int | None = None
        self.error: Exception | None = None
        self._come: dict[int, dict[int, RankState]] = {}  # step -> rank -> what it holds

    def add(self, rank: int, held: RankState) -> None:
        """Take what a rank holds. If the file cannot be written, a warning says so, and the training goes on."""
        come = self._come.setdefault(held.step, {})
        come[rank] = held
        if len(come) == self.workers:
            del self._come[held.step]
            self.try_to_write([come[rank] for rank in sorted(come)])

    def try_to_write(self, ranks: list[RankState]) -> None:
        """Write what all ranks hold, in their order; the first time that it is not possible a warning says so."""
        told = self.error is not None
        try:
            self.write(ranks)
        except UNWRITABLE as error:
            if not told:
                warnings.warn(f"no checkpoint after step {ranks[0].step}: {error}", stacklevel=2)

    def write(self, ranks: list[RankState]) -> None:
        """Write what all ranks hold, in their order. Raises what `minidl.save` does."""
        merged = merge(ranks)
        optimizer = self.run["optimizer"] | merged["optimizer"]
        schedule = _schedule(self.lr_schedule, merged["step"])
        try:
            if leads():
                io.save({**self.run, **merged, "optimizer": optimizer, "schedule": schedule}, self.path)
        except UNWRITABLE as error:
            self.error = error
            raise
        self.saved_step, self.error = merged["step"], None


def is_checkpoint(path: str | PathLike) -> bool:
    """Whether the file is a checkpoint, of whatever run; false for what is no file, or none that can be read."""
    try:
        return Path(path).is_file() and _is_checkpoint(io.load(path, device="meta"))
    except (OSError, ValueError):
        return False


def steps_done(path: str | PathLike, model: Module, run: dict, lr_schedule: Schedule | None) -> int:
    """The steps that the training in `path` has done.

    ValueError if it is no checkpoint, or of a run that differs from the one that `describe` gave: the differences are
    named. model: the chain on meta.
    """
    saved = io.load(path, device="meta")
    if not _is_checkpoint(saved):
        raise ValueError(f"{path} is no checkpoint to go on from: it may hold parameters alone")
    step = saved.get("step")
    try:
        check_count("step", step)
    except ValueError:
        raise ValueError(f"{path} is no whole checkpoint: it does not say how many steps were done") from None
    schedule = _schedule(lr_schedule, step)  # a function of the user's, whose errors are none of the file's
    try:
        differences = [*_model(saved["model"], model), *_settings(saved, run | {"schedule": schedule})]
    except (KeyError, AttributeError, TypeError):
        raise ValueError(f"{path} is no whole checkpoint: part of what one holds is missing") from None
    if differences:
        raise ValueError(f"{path} was written by another run: {', '.join(differences)}")
    return step


def _is_checkpoint(saved: dict) -> bool:
    kind = saved.get("kind")
    return isinstance(kind, str) and kind == KIND  # a tensor would compare itself element by element


def _schedule(lr_schedule: Schedule | None, steps: int) -> dict | None:
    """What is kept of a schedule after so many steps: its last factor, by which another one is noticed."""
    return None if lr_schedule is None else {"factor": float(lr_schedule(steps - 1))}


def _model(saved: dict, model: Module) -> Iterator[str]:
    """The first difference between the saved arrays and those of the model, in words."""
    theirs = {name: tensor.shape for name, tensor in saved.items()}
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers())
    ours = {name: tensor.cut.whole for name, tensor in named}
    for name in [*theirs, *ours]:
        if theirs.get(name) != ours.get(name):
            there, here = (f"has shape {of[name]}" if name in of else "does not exist" for of in (theirs, ours))
            yield f"{name} {there} there and {here} here"
            return


def _settings(saved: dict, run: dict) -> Iterator[str]:
    """The settings that differ, in words."""
    for name, here in run.items():
        if name == "plan":  # what is saved is whole, and is cut anew
            continue
        there = saved[name]
        if name == "optimizer":
            yield from _differences("optimizer", {"name": there["name"]}, {"name": here["name"]})
            theirs, ours = _options(there["param_groups"]), _options(here["param_groups"])
            found = (_differences(f"optimizer of {p}", theirs.get(p, {}), options) for p, options in ours.items())
            yield from next(filter(None, map(list, found)), ())
        elif there != here:
            yield f"{name} {_shown(there)} there and {_shown(here)} here"


def _differences(what: str, there: dict, here: dict) -> Iterator[str]:
    """The values by which two dicts differ, in one sentence, if they do."""
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if names:
        theirs, ours = (" ".join(f"{name}={_shown(of.get(name))}" for name in names) for of in (there, here))
        yield f"{what} {theirs} there and {ours} here"


def _options(groups: list[dict]) -> dict[str, dict]:
    """parameter -> its options."""
    return {name: {k: v for k, v in group.items() if k != "params"} for group in groups for name in group["params"]}


def _shown(value) -> str:
    return f"{value['factor']:g}" if isinstance(value, dict) else str(value)
