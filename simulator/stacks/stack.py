"""Stack: what a software stack makes of a model's kernels and communication, and how it is loaded from a TOML file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path

from minidl.kernels import meta
from minidl.parallel.block_profile import Call
from minidl.parallel.plan import PRECISIONS as PRECISIONS_OF_PLANS
from minidl.parallel.plan import RECOMPUTATIONS, Plan
from minidl.validation import check_name_or_path
from simulator import schema
from simulator.compute.device import PRECISIONS
from simulator.schema import Schema
from simulator.stacks.constants import pace
from simulator.stacks.extra import Extra
from simulator.stacks.rewrite import rewritten

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
NOT_STACKS = ("constants",)

PART = schema.number("a share from 0 to 1", lambda x: 0 <= x <= 1)
ATTENTION = ("device", "plain", "flash")


def _kernel(place: str, value: object) -> None:
    """The name by which a kernel is recorded on meta."""
    schema.text(place, value)
    if not callable(getattr(meta, value, None)):
        raise ValueError(f"{place} = {value!r} is no kernel of minidl: minidl/kernels/meta/ has them")


def _entry(default: object, of: Schema) -> object:
    """A field that a file may have as a figure {value, source}. of: what the value must be."""
    return field(default=default, metadata={"schema": of})


@dataclass(frozen=True, kw_only=True)
class Stack:
    """How a framework runs a model. Each field below `name` is an entry of a file; by default it is what minidl does.

    key: by which `load` knows it. name: what people call it.

    Kernels:
    dropout: the share that its models drop, for who builds them; the kernels are those of the model that is built.
    attention: "flash", in tiles that keep no weights (Dao et al. 2022), "plain", or as the "device" does it in minidl.
    attention_grad_time: of the gradient of attention in tiles, relative to what the device's figures say of it.
    fused: kernels that are one, each a list of their names in order: no array between two of them is written and read.
    fused_chains: so are all kernels in a row that are no products and each take what the one before has made.
    extra: kernels beside those of minidl: see `Extra`.
    passes: bytes that kernels move which are neither products nor updates, relative to those of minidl.
    products: the dtype of the products of linear layers, those that are no batch of products, but for the last block,
    the head, which Transformer Engine and torchao leave out; of all products and convolutions if it is "tfloat32"; ""
    that of the plan.
    cast_passes: times that such a product's operands are read or written to be cast, where it has a dtype of its own.
    accumulates_in_products: gradients of weights are added up by the product that makes them, by no kernel of its own.
    loss: the dtype of the loss's kernels: "" that of the plan. A wider one has copies of the logits and their gradient.
    update_passes: bytes that an update moves, relative to those of minidl in float32.
    update_at_once: one kernel updates all parameters that are updated together.
    dispatch_us: what the host takes to launch a kernel. A block whose kernels are faster waits for it.

    Communication:
    tensor_overlap: what a profile starts and waits for later does run meanwhile, as a tensor all-reduce beside the
    gradient of a weight; else it is waited for at once.
    tensor_hidden, data_hidden, pipeline_hidden: shares of what layers, of gradients and parameters, and of what
    stages exchange that take no time, as they run beside kernels where the program does not say so.
    gather_overlap: of gathering parameters just in time, the share that does run beside kernels.
    split_sends: each of the tensor ranks sends its part of an activation to the next stage (Narayanan et al. 2021,
    section 4.1).
    gradients: the dtype in which gradients are reduced: "" that of the plan.

    What a plan does not say, or says and the stack does otherwise:
    bucket_mb: MiB of a bucket of gradients; None: as the plan says.
    recompute: what is computed again, whatever the plan says; "" as the plan says.

    Memory:
    workspace_gb: what a process has on a device beside arrays: its context, workspaces of libraries, buffers of NCCL.
    fragmentation: of what the allocator has, the share that no array can use.
    """

    key: str
    name: str
    dropout: float = _entry(0.0, PART)
    attention: str = _entry("device", schema.one_of(*ATTENTION))
    attention_grad_time: float = _entry(1.0, schema.POSITIVE)
    fused: tuple[tuple[str, ...], ...] = _entry((), schema.list_of(schema.list_of(_kernel)))
    fused_chains: bool = _entry(False, schema.boolean)
    extra: tuple[Extra, ...] = ()
    passes: float = _entry(1.0, schema.POSITIVE)
    products: str = _entry("", schema.one_of("", *PRECISIONS))
    cast_passes: float = _entry(0.0, schema.NOT_NEGATIVE)
    accumulates_in_products: bool = _entry(False, schema.boolean)
    loss: str = _entry("", schema.one_of("", *PRECISIONS_OF_PLANS))
    update_passes: float = _entry(1.0, schema.POSITIVE)
    update_at_once: bool = _entry(False, schema.boolean)
    dispatch_us: float = _entry(0.0, schema.NOT_NEGATIVE)
    tensor_overlap: bool = _entry(True, schema.boolean)
    tensor_hidden: float = _entry(0.0, PART)
    data_hidden: float = _entry(0.0, PART)
    pipeline_hidden: float = _entry(0.0, PART)
    gather_overlap: float = _entry(1.0, PART)
    split_sends: bool = _entry(False, schema.boolean)
    gradients: str = _entry("", schema.one_of("", *PRECISIONS_OF_PLANS))
    bucket_mb: float | None = _entry(None, schema.POSITIVE)
    recompute: str = _entry("", schema.one_of("", *RECOMPUTATIONS))
    workspace_gb: float = _entry(0.0, schema.NOT_NEGATIVE)
    fragmentation: float = _entry(0.0, schema.number("a share from 0 to below 1", lambda x: 0 <= x < 1))

    @staticmethod
    def names() -> list[str]:
        """Those that `load` knows."""
        return sorted(path.stem for path in FOLDER.glob("*.toml") if path.stem not in NOT_STACKS)

    @classmethod
    def load(cls, name: str | Path) -> Stack:
        """A stack by its name, or from the TOML file at a path.

        ValueError for an unknown name, and for an entry that is missing, unknown or not what it must be; TypeError for
        what is neither a name nor a path.
        """
        check_name_or_path("stack", name)
        if str(name) in cls.names():
            return _known(str(name))
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"no stack {str(name)!r}: neither a file nor one of {', '.join(cls.names())}")
        return _read(path)

    def pace(self, device: str) -> float:
        """By what every time of a step on this device is multiplied; 1 where no such constant was fitted."""
        return pace(self.key, device)

    def planned(self, plan: Plan) -> Plan:
        """The plan as the stack carries it out."""
        own = {name: value for name in ("bucket_mb", "recompute") if (value := getattr(self, name))}
        return replace(plan, **own) if own else plan

    @cached_property
    def without_products(self) -> Stack:
        """The same for the head, whose products are in the dtype of the plan, or in "tfloat32"."""
        return self if self.products in ("", "tfloat32") else replace(self, products="")

    def rewrite(self, calls: Sequence[Call], precision: str) -> Sequence[Call]:
        """The calls that this stack makes of them in training in `precision`, with the dtypes and bytes they have then.

        Masters of parameters and the optimizer's state stay in float32.
        """
        return rewritten(self, calls, precision)


ENTRIES = {one.name: one.metadata["schema"] for one in fields(Stack) if "schema" in one.metadata}
EXTRA = schema.list_of(
    schema.table(
        {"after": _kernel, "kernels": schema.COUNT, "passes": schema.NOT_NEGATIVE, "source": schema.text},
        optional=("source",),
    )
)
FILE = schema.table(
    {"name": schema.text, "like": schema.text, "extra": EXTRA} | schema.figures(**ENTRIES),
    optional=("like", "extra", *ENTRIES),
)


@lru_cache
def _known(name: str) -> Stack:
    return _read(FOLDER / f"{name}.toml")


def _read(path: Path, children: tuple[Path, ...] = ()) -> Stack:
    """The stack of a file. children: those that are like it, which it must not be like in turn."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from None
    try:
        FILE("", table)
        return _stack(path, table, children)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _stack(path: Path, table: Mapping, children: tuple[Path, ...]) -> Stack:
    """The stack of a table, which fits FILE: what it does not say is as the stack has it that it is like."""
    given = schema.values(table)
    if "fused" in given:
        given["fused"] = tuple(map(tuple, given["fused"]))
    if "extra" in table:
        given["extra"] = tuple(Extra(e["after"], e["kernels"], e["passes"]) for e in table["extra"])
    named = {"key": path.stem, "name": table["name"]}
    if "like" not in table:
        return Stack(**named, **given)
    other = FOLDER / f"{table['like']}.toml"
    if not other.is_file() or table["like"] in NOT_STACKS:
        raise ValueError(f"like = {table['like']!r} is none of {', '.join(Stack.names())}")
    if other in (path, *children):
        raise ValueError(f"like = {table['like']!r} goes round in a circle")
    return replace(_read(other, (path, *children)), **named, **given)
