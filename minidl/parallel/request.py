"""What `train` was asked for, refused at the door where it does not fit together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from minidl.data.batches import batches_per_epoch, split_batch
from minidl.dtypes import dtype_of
from minidl.files import check_writable
from minidl.kernels import for_device
from minidl.kernels.meta import MetaArray
from minidl.nn.module import Module
from minidl.parallel import blocks
from minidl.parallel.chain_profile import chain_of
from minidl.parallel.contracts import check_builder, check_dataset, check_loss
from minidl.parallel.plan import Plan
from minidl.parallel.prepare import Builder
from minidl.validation import check_count, check_positive


@dataclass(kw_only=True)
class Request:
    """The arguments of `train` that workers need, as it describes them. Raises as `train` does."""

    build: Builder
    dataset: object
    plan: Plan
    optimizer: Callable
    loss: object
    batch_size: int
    steps: int
    seed: int
    drop_last: bool
    evaluate: object
    evaluate_every: int | None
    lr_schedule: Callable[[int], float] | None
    clip_norm: float | None
    dtype: np.dtype
    trace_steps: int
    device: str
    save: str | PathLike | None
    save_every: int | None
    resume: str | PathLike | None

    def __post_init__(self):
        if not isinstance(self.plan, Plan):
            raise TypeError(f"plan must be a Plan, not a {type(self.plan).__name__}")
        if self.plan.precision != "float32":
            raise ValueError(f'precision="{self.plan.precision}" is for the simulator: train computes in float32')
        self.plan.check_batch(self.batch_size)
        for name, least in (("evaluate_every", 1), ("trace_steps", 1), ("seed", 0), ("save_every", 1)):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=least)
        check_builder(self.build)
        check_dataset("the data set", self.dataset)
        if self.evaluate is not None:
            check_dataset("the data set to evaluate", self.evaluate)
        check_loss(self.loss)
        if self.lr_schedule is not None and not callable(self.lr_schedule):
            raise TypeError(f"lr_schedule must be a function of the step, not a {type(self.lr_schedule).__name__}")
        if self.clip_norm is not None:
            check_positive("clip_norm", self.clip_norm)
        self.dtype = dtype_of(self.dtype)
        if self.dtype.kind != "f":
            raise ValueError(f"parameters of dtype {self.dtype} cannot be trained: use float32 or float64")
        if not self.steps_per_epoch:
            raise ValueError(f"drop_last leaves nothing of {len(self.dataset)} samples: a batch has {self.batch_size}")
        check_count("steps", self.steps)
        self.evaluate_every = self.evaluate_every or self.steps
        self._check_device()
        self._check_files()

    def _check_device(self) -> None:
        for_device(self.device)
        if self.device == "meta":
            raise ValueError("device 'meta' computes nothing: train on 'cpu', or price the plan with the simulator")
        if self.device != "cpu" and self.plan.workers > 1:
            raise ValueError(f"device {self.device!r} trains on one worker yet, the plan has {self.plan.workers}")

    def _check_files(self) -> None:
        """Make the paths absolute, as a function of the user's may change the folder."""
        if self.resume is not None:
            self.resume = Path(self.resume).absolute()
            self.save = self.resume if self.save is None else self.save
        if self.save is not None:
            check_writable(save := Path(self.save))
            self.save = save.absolute()
        elif self.save_every is not None:
            raise ValueError(f"save_every={self.save_every} needs save, the file to write")

    @property
    def steps_per_epoch(self) -> int:
        return batches_per_epoch(len(self.dataset), self.batch_size, self.drop_last)

    @property
    def example(self) -> tuple:
        """Input and target of one sample."""
        return self.dataset[np.arange(1)]

    def check_last_batches(self, model: Module, x: MetaArray) -> None:
        """ValueError if the model cannot take a micro-batch of the last, short batch of an epoch, or of an evaluation.

        Batch norm cannot be trained on a single value, and samples that layers split may not divide. model: on meta.
        x: a micro-batch of a whole batch, on which it has run.
        """
        if self.steps >= self.steps_per_epoch and not self.drop_last:
            self._check_last_batch(model, x, self.dataset, trains=True)
        if self.evaluate is not None:
            self._check_last_batch(model, x, self.evaluate, trains=False)

    def _check_last_batch(self, model: Module, x: MetaArray, dataset, trains: bool) -> None:
        plan, samples, run = self.plan, len(dataset), _forward if trains else blocks.infer
        short = samples % self.batch_size
        replicas = split_batch(np.arange(short), plan.sample_parts, plan.micro_batches)
        sizes = {len(micro_batch) for micro_batches in replicas for micro_batch in micro_batches} - {0}
        for size in sorted(sizes):
            array = MetaArray((size, *x.shape[1:]), x.dtype)
            try:
                for block in chain_of(model.train(trains)):
                    array = run(block, array)
            except ValueError as error:
                what, hint = ("an epoch", ", or drop_last") if trains else ("the evaluation", "")
                cut = ", ".join(f"{n}={getattr(plan, n)}" for n in ("data", *plan.spread(["expert"]), "micro_batches"))
                raise ValueError(
                    f"of {samples} samples, the last batch of {what} has {short}, a micro-batch of it ({cut}) {size}: "
                    f"{error}; choose another batch_size than {self.batch_size}{hint}"
                ) from None
            finally:
                model.train(True)


def _forward(block: Module, array):
    return blocks.forward(block, array, False)[0]
