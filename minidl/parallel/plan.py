"""Plan: how training is to be spread over workers. What the user asks for, validated."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.display import Displayed
from minidl.parallel.mesh import AXES, REPLICAS, SAMPLES, Connect, Mesh
from minidl.parallel.schedules import SCHEDULES, OrderOfStage, schedule_of
from minidl.validation import check_count, check_positive

if TYPE_CHECKING:
    from rich.text import Text

TRUTHS = {"true": True, "false": False}
RECOMPUTATIONS = ("none", "selective", "full")
SHARDINGS = ("none", "optimizer", "gradients", "parameters")
PRECISIONS = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of a number


def _field(default: int | float | str | bool, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field of a plan, which is checked, read from text and made an option of a command by what is said here.

    The type of the default says what it holds: a whole number of at least 1, a positive number, one of `choices`, or
    True or False.
    """
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(Displayed):
    """Sizes of the mesh axes and the way a step is scheduled. The number of workers is the product of the axes.

    data: replicas of the model; each takes its share of every batch.
    pipeline: stages the chain of blocks is cut into.
    tensor: ranks that share each split layer.
    context: ranks that share each sequence, of which each has two chunks (Liu et al. 2023).
    expert: ranks that share the experts of each mixture; each takes its share of every batch, as replicas do.
    micro_batches: slices of a replica's batch, one after the other through the pipeline; gradients are accumulated.
    schedule: the order of forwards and backwards: "naive" (one micro-batch at a time), "gpipe" (all forwards, then all
        backwards; Huang et al. 2019), "1f1b" (one forward, one backward in turn; Narayanan et al. 2019), "interleaved"
        (1f1b between the chunks of a stage; Narayanan et al. 2021) or "zero-bubble" (1f1b whose backwards come in two
        halves; Qi et al. 2023). Or a function of your own: of (stage, stages, micro_batches, chunks of a stage), to the
        passes of that stage in order (`minidl.parallel.schedules.Pass`); the checker proves what it makes.
    chunks: parts of the model that each stage holds, `pipeline` apart in the chain: one with "1f1b" and "zero-bubble",
        two or more with "interleaved", whose micro-batches must be a multiple of `pipeline`.
    recompute: what is not kept from forward to backward, but computed again there: "none", the weights of attention
        ("selective"; Korthikanti et al. 2022, section 5), or all but the input of each bucket ("full"; Chen et al.
        2016).
    bucket_mb: gradients are reduced over the replicas in buckets of about this many MiB (Li et al. 2020, section 4.2).
    sharding: what the replicas share among them instead of each having all of it (Rajbhandari et al. 2020, ZeRO):
        "none"; the state of the "optimizer", each replica updating its share of the parameters (stage 1); the
        "gradients" as well, reduced after every micro-batch (stage 2); or the "parameters" too, gathered bucket by
        bucket just before each forward and each backward, and dropped after it (stage 3; FSDP). One replica has nothing
        to share; parameters that several blocks hold are whole on all replicas.
    sequence_parallel: between the layers that the tensor ranks share, each has its slice of every sequence instead of
        all of it (Korthikanti et al. 2022, section 4.2.2).
    precision: in which activations, gradients on their way and messages are stored: "float32", or, for the simulator to
        price, "bfloat16" or "float16" with float32 masters of the parameters (Micikevicius et al. 2018, section 3.1).

    Replicas are all ranks that have the same parameters and other data: those along data, context and expert, but that
    the expert ranks have other experts.
    """

    data: int = _field(1, "replicas of the model")
    pipeline: int = _field(1, "stages of the model")
    tensor: int = _field(1, "ranks that share a layer")
    context: int = _field(1, "ranks that share a sequence")
    expert: int = _field(1, "ranks that share the experts")
    micro_batches: int = _field(1, "slices of a replica's batch")
    schedule: str | OrderOfStage = _field("1f1b", "of the pipeline", tuple(SCHEDULES))
    chunks: int = _field(1, "parts of the model that a stage holds")
    recompute: str = _field("none", "what is computed again in backward", RECOMPUTATIONS)
    bucket_mb: float = _field(1.0, "MiB of gradients that replicas reduce at once")
    sharding: str = _field("none", "what replicas hold in shares: ZeRO 1, 2, 3 (FSDP)", SHARDINGS)
    sequence_parallel: bool = _field(False, "slice sequences between split layers")
    precision: str = _field("float32", "of activations and messages", tuple(PRECISIONS))

    def __post_init__(self):
        for field in dataclasses.fields(self):
            name, kind, choices = field.name, type(field.default), field.metadata["choices"]
            value = getattr(self, name)
            if kind is bool:
                if not isinstance(value, bool | np.bool_):
                    raise ValueError(f"{name} must be True or False, not {value!r}")
            elif kind is int:
                check_count(name, value)
            elif kind is float:
                check_positive(name, value)
                if math.isinf(value):
                    raise ValueError(f"{name}={value} is not a finite number")
            elif name == "schedule" and callable(value):
                continue
            elif value not in choices:
                raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(choices)}")
            object.__setattr__(self, name, kind(value))  # Python's own, of NumPy's numbers and texts, which are as good
        self._check_schedule()
        if self.sequence_parallel and self.tensor == 1:
            raise ValueError("sequence_parallel=True needs tensor=2 or more: the tensor ranks have slices of sequences")

    def _check_schedule(self) -> None:
        """ValueError unless the schedule holds for as many stages, chunks and micro-batches."""
        schedule, pipeline, chunks = schedule_of(self.schedule), self.pipeline, self.chunks
        if chunks > 1 and schedule.one_chunk:
            raise ValueError(f'schedule="{self.schedule}" runs one chunk a stage, not chunks={chunks}')
        if chunks == 1 and schedule.several_chunks:
            raise ValueError(f'schedule="{self.schedule}" needs several chunks a stage: say chunks=2 or more')
        if chunks > 1 and pipeline == 1:
            raise ValueError(f"chunks={chunks} needs pipeline=2 or more: a single stage has the whole chain")
        if schedule.whole_rounds and self.micro_batches % pipeline:
            raise ValueError(
                f'schedule="{self.schedule}" needs micro_batches that are a multiple of pipeline={pipeline}, '
                f"not {self.micro_batches}"
            )

    @classmethod
    def parse(cls, text: str) -> Plan:
        """The plan of a text such as "data=2 pipeline=2 schedule=gpipe"; an empty one has one worker.

        ValueError says what is wrong with it.
        """
        types = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        found: dict[str, object] = {}
        for part in text.split():
            name, equals, value = part.partition("=")
            if not equals or name not in types:
                raise ValueError(f"{part!r} is no field of a plan: write name=value, with one of {', '.join(types)}")
            if name in found:
                raise ValueError(f"{name} is given twice")
            try:
                found[name] = TRUTHS[value.lower()] if types[name] is bool else types[name](value)
            except (ValueError, KeyError):
                needed = {int: "whole number", bool: "truth value, True or False"}.get(types[name], "number")
                hint = "; fields are parted by spaces" if "," in value else ""
                raise ValueError(f"{name}={value}: {value!r} is not a {needed}{hint}") from None
        return cls(**found)

    @property
    def schedule_name(self) -> str:
        """Of a function its name."""
        return getattr(self.schedule, "__name__", str(self.schedule))

    @cached_property
    def axes(self) -> dict[str, int]:
        """Size of each mesh axis that is larger than 1."""
        return {axis: size for axis in AXES if (size := getattr(self, axis, 1)) > 1}

    @property
    def sample_parts(self) -> int:
        """Into how many parts the samples of a global batch are cut, before each is cut into micro-batches."""
        return math.prod(getattr(self, axis, 1) for axis in SAMPLES)

    def spread(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Of these axes those along which there is more than one rank."""
        return tuple(axis for axis in axes if axis in self.axes)

    def shards(self, axes: Iterable[str]) -> int:
        """Into how many parts the update of parameters is cut that are the same along `axes`; 1: it is not sharded."""
        return math.prod(self.axes[axis] for axis in self.spread(axes)) if self.sharding != "none" else 1

    @property
    def parted(self) -> tuple[str, ...]:
        """The axes along which ranks of a stage may hold, or update, other parts of the parameters."""
        return (*self.spread(REPLICAS if self.sharding != "none" else ("expert",)), "tensor")

    @property
    def scale(self) -> float:
        """Bytes of a number in the precision, relative to float32."""
        return PRECISIONS[self.precision] / PRECISIONS["float32"]

    @property
    def workers(self) -> int:
        return math.prod(self.axes.values())

    def mesh(self, rank: int = 0, connect: Connect | None = None) -> Mesh:
        """The mesh as `rank` sees it, with groups that `connect` makes, or that record instead of communicating."""
        return Mesh(self.axes, rank, connect, self.sequence_parallel)

    def check_batch(self, batch_size: int) -> None:
        """ValueError unless a batch can be cut into replicas and micro-batches of equal size."""
        check_count("batch_size", batch_size)
        parts = self.sample_parts * self.micro_batches
        if batch_size % parts:
            experts = f"expert={self.expert} × " if self.expert > 1 else ""
            raise ValueError(
                f"batch_size {batch_size} is not divisible by "
                f"data={self.data} × {experts}micro_batches={self.micro_batches} (= {parts})"
            )

    def __repr__(self) -> str:
        """The call that makes it, of the fields that are not as by default."""
        given = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        changed = ((name, value) for name, value in given if value != getattr(type(self), name))
        shown = (f"{name}={self.schedule_name if callable(value) else repr(value)}" for name, value in changed)
        return f"Plan({', '.join(shown)})"

    def __rich__(self) -> Text:
        from rich.text import Text

        return Text(str(self))

    def __str__(self) -> str:
        return self._in_words(f"sharded {self.sharding}", ", {} micro-batches")

    @property
    def label(self) -> str:
        """As `str` in fewer characters, for a table: "×4" are 4 micro-batches."""
        return self._in_words(f"ZeRO-{SHARDINGS.index(self.sharding)}", " ×{}")

    def _in_words(self, sharded: str, micro_batches: str) -> str:
        text = " × ".join(f"{axis} {size}" for axis, size in self.axes.items()) or "one worker"
        if self.sequence_parallel:
            text += ", sequence parallel"
        if self.pipeline > 1:
            text += f", {self.schedule_name}"
        if self.chunks > 1:
            text += f", {self.chunks} chunks"
        if self.precision != "float32":
            text += f", {self.precision}"
        if self.recompute != "none":
            text += f", {self.recompute} recompute"
        if self.shards(REPLICAS) > 1:
            text += f", {sharded}"
        if (self.spread(REPLICAS) or self.recompute == "full") and self.bucket_mb != type(self).bucket_mb:
            text += f", buckets of {self.bucket_mb:g} MiB"
        return text + (micro_batches.format(self.micro_batches) if self.micro_batches > 1 else "")
