"""profile: what each block of a model costs, counted, and the time it takes here, measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from rich.status import Status

from minidl import random
from minidl.creation import device, tensor
from minidl.display import Displayed
from minidl.kernels import for_array
from minidl.kernels.meta import KernelCall, MetaArray
from minidl.monitor.terminal import error_console
from minidl.nn.containers import ModuleList, Sequential
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.parallel import blocks
from minidl.parallel.block_profile import BlockProfile, Call, flops, profile_block
from minidl.parallel.blocks import each, several
from minidl.parallel.runtime.device import device_of_rank
from minidl.parallel.signature import signature
from minidl.profile_table import profile_table
from minidl.storage import on_meta, placement
from minidl.tensor import Tensor
from minidl.validation import check_count

if TYPE_CHECKING:
    from rich.table import Table

REST = "(rest)"


@dataclass(frozen=True)
class Row:
    """What one block costs, for all of the calls of a forward and a backward.

    output: its shape; of a tuple, that of the first tensor. kept_bytes: what it keeps from forward to backward; an
    array that two blocks keep counts in both. seconds: medians. None: not known, or not measured. The backward of a
    first block does not include the gradient of the data, which nobody wants.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    forward_flops: int
    backward_flops: int
    forward_bytes: int
    backward_bytes: int
    kept_bytes: int | None
    forward_seconds: float | None = None
    backward_seconds: float | None = None


@dataclass(frozen=True)
class Profile(Displayed):
    """A row for each block, and the total: of the whole model run as one block, which keeps each array once."""

    rows: tuple[Row, ...]
    total: Row

    def as_dict(self) -> dict[str, object]:
        """For programs: FLOPs, bytes read and written, seconds."""
        return {"rows": [asdict(row) for row in self.rows], "total": asdict(self.total)}

    def __repr__(self) -> str:
        return f"<Profile of {self.total.kind}: {len(self.rows)} rows>"

    def __rich__(self) -> Table:
        return profile_table(self)


def profile(model: Module, input, depth: int = 1, repeats: int = 5, show: bool = True) -> Profile:
    """What each block of `model` costs for `input`: parameters, FLOPs, bytes moved and kept; and its time on the CPU.

    The blocks are those of a Sequential, or the children of another module, and what it does beside them as "(rest)";
    depth: how far down, 0 for the model as one block. A module is one row if a child of it takes or makes another thing
    than a tensor or a flat tuple of tensors. FLOPs and bytes are counted by running the blocks on meta. Times are
    medians of `repeats` runs after a first one; a model on meta is not timed, so one of any size can be counted. show:
    print the table.

    The model runs as it is, in training or not, and is left as it was. TypeError: it does not make a tensor or a flat
    tuple of tensors.
    """
    if not isinstance(model, Module):
        raise TypeError(f"profile needs a module, not a {type(model).__name__}")
    for name, value, least in (("depth", depth, 0), ("repeats", repeats, 1)):
        check_count(f"profile: {name}", value, least)
    x = (input if isinstance(input, Tensor) else tensor(input)).data
    with _undisturbed(model), error_console(notebook=False).status("") as status:
        walk = _Walk(repeats, status)
        walk.block("", model, x, False, depth)
        rows, walk.rows = walk.rows, []
        walk.row("total", model, [(x, False)])
    found = Profile(tuple(rows), walk.rows[0])
    if show:
        print(found)
    return found


class _Walk:
    """Goes down a model and makes the rows. Blocks get the arrays that they get in the model."""

    def __init__(self, repeats: int, status: Status):
        self.repeats, self.status = repeats, status
        self.rows: list[Row] = []
        self.known: dict[tuple, BlockProfile] = {}

    def block(self, name: str, block: Module, x, wants_grad: bool, depth: int):
        """The rows of a block called on the array `x`, or a tuple; gives its output."""
        if depth and isinstance(block, Sequential) and len(block):
            for child_name, child in block.named_children():
                x = self.block(_join(name, child_name), child, x, wants_grad, depth - 1)
                wants_grad = wants_grad or any(p.requires_grad for p in child.parameters())
            return x
        with _drawing_alike():
            calls, out = _children_calls(block, x, wants_grad)
        if not depth or not calls:
            self.row(name, block, [(x, wants_grad)])
            return out
        before = len(self.rows)
        for child_name, child, found in calls:
            if len(found) == 1:
                self.block(_join(name, child_name), child, *found[0], depth - 1)
            else:
                self.row(_join(name, child_name), child, found)
        self._rest(name, block, x, wants_grad, self.rows[before:])
        return out

    def row(self, name: str, block: Module, calls: list[tuple]) -> None:
        self.status.update(f"{name} {type(block).__name__}")
        times = [_seconds(block, x, wants_grad, self.repeats) for x, wants_grad in calls]
        forward, backward = (None if None in found else sum(found) for found in zip(*times, strict=True))
        self.rows.append(replace(self._counts(name, block, calls), forward_seconds=forward, backward_seconds=backward))

    def _counts(self, name: str, block: Module, calls: list[tuple]) -> Row:
        counted = [self._counted(block, x, wants_grad) for x, wants_grad in calls]
        return Row(
            name, type(block).__name__, several(counted[-1].output)[0].shape, counted[0].parameter_count,
            sum(flops(c.forward) for c in counted), sum(flops(c.backward) for c in counted),
            sum(_moved(c.forward) for c in counted), sum(_moved(c.backward) for c in counted),
            sum(c.saved_bytes for c in counted),
        )  # fmt: skip

    def _counted(self, block: Module, x, wants_grad: bool) -> BlockProfile:
        x = each(on_meta, x)
        key = signature(block), each(placement, x), wants_grad
        if key not in self.known:
            with _on_meta(block):
                self.known[key] = profile_block(block, x, wants_grad, trained=True)
        return self.known[key]

    def _rest(self, name: str, block: Module, x, wants_grad: bool, rows: list[Row]) -> None:
        """What the block does beside its children: all that it counts less their rows."""
        whole = self._counts(name, block, [(x, wants_grad)])
        counts = ("forward_flops", "backward_flops", "forward_bytes", "backward_bytes")
        left = {field: getattr(whole, field) - sum(getattr(row, field) for row in rows) for field in counts}
        own = sum(p.numel() for p in vars(block).values() if isinstance(p, Parameter))
        self.rows.append(replace(whole, kind=REST, parameters=own, kept_bytes=None, **left))


def _children_calls(block: Module, x, wants_grad: bool):
    """-> name, child and the arrays and wants_grad of its calls, for each child of `block` run on `x`; and the output.

    No children if one of them has another input than a tensor or a flat tuple of tensors, or another output.
    """
    children = list(_callable_children(block))
    calls: dict[int, list[tuple]] = {id(child): [] for _, child in children}
    simple = True

    def note(module, inputs, out):
        nonlocal simple
        if len(inputs) == 1 and _are_tensors(inputs[0]) and _are_tensors(out):
            wanted = any(t.requires_grad for t in several(inputs[0]))
            calls[id(module)].append((each(_data, inputs[0]), wanted))
        else:
            simple = False

    handles = [child.register_forward_hook(note) for _, child in children]
    try:
        with device("meta" if isinstance(several(x)[0], MetaArray) else "cpu"):
            out = block(each(lambda a: Tensor(a, requires_grad=wants_grad and a.dtype.kind == "f"), x))
    finally:
        for handle in handles:
            handle.remove()
    if not _are_tensors(out):
        raise TypeError(
            f"profile needs modules that make a tensor or a flat tuple of tensors, {type(block).__name__} gave a "
            f"{type(out).__name__}"
        )
    found = [(name, child, calls[id(child)]) for name, child in children if calls[id(child)]]
    return found if simple else [], each(_data, out)


def _are_tensors(x) -> bool:
    """Whether x is a tensor, or a tuple of nothing else, as blocks take and make them."""
    return all(isinstance(t, Tensor) for t in several(x)) and len(several(x)) > 0


def _data(t: Tensor):
    return t.data


def _callable_children(block: Module) -> Iterator[tuple[str, Module]]:
    """The children, those of a list in its place, which has no forward of its own."""
    for name, child in block.named_children():
        if isinstance(child, ModuleList) and not isinstance(child, Sequential):
            yield from ((f"{name}.{inner}", module) for inner, module in _callable_children(child))
        else:
            yield name, child


def _seconds(block: Module, x, wants_grad: bool, repeats: int) -> tuple[float | None, float | None]:
    """The median times of forward and backward; None on meta. The first run, which may compile kernels, is left out."""
    if isinstance(several(x)[0], MetaArray):
        return None, None
    times = []
    kernels = for_array(several(x)[0])
    device = device_of_rank(kernels.DEVICE)
    for _ in range(repeats + 1):
        with _drawing_alike():
            moments = [device.now()]
            y, saved = blocks.forward(block, x, wants_grad)
            moments.append(device.now())
        gradient = each(lambda array: kernels.full(array.shape, 1, array.dtype), y)
        moments.append(device.now())
        saved.backward(gradient)
        start, forward, begun, end = map(device.seconds, (*moments, device.now()))
        times.append((forward - start, end - begun))
        block.zero_grad()
    return tuple(map(statistics.median, zip(*times[1:], strict=True)))


def _drawing_alike():
    """Random numbers from a generator of its own, so that the default one is not used up."""
    return random.drawing_from(random.generator(0, "profile"))


@contextmanager
def _on_meta(block: Module) -> Iterator[None]:
    """Inside, the tensors of the block have shapes and no values."""
    held = {id(t): (t, t.data) for module in block.modules() for t in vars(module).values() if isinstance(t, Tensor)}
    try:
        for t, data in held.values():
            t.data = MetaArray(data.shape, data.dtype)
        with device("meta"):
            yield
    finally:
        for t, data in held.values():
            t.data = data


@contextmanager
def _undisturbed(model: Module) -> Iterator[None]:
    """Afterwards gradients and buffers are what they were."""
    parameters = [(p, p.grad, p.gradient_buffer) for p in model.parameters()]
    buffers = [(b, b.data, b.kernels.copy(b.data)) for b in model.buffers()]
    try:
        for p, _, _ in parameters:
            p.grad = p.gradient_buffer = None
        yield
    finally:
        for p, grad, gradient_buffer in parameters:
            p.grad, p.gradient_buffer = grad, gradient_buffer
        for b, data, values in buffers:
            b.kernels.assign(data, values)
            b.data = data


def _moved(calls: tuple[Call, ...]) -> int:
    """The bytes that kernels read and write."""
    return sum(c.bytes_read + c.bytes_written for c in calls if isinstance(c, KernelCall))


def _join(name: str, child: str) -> str:
    return f"{name}.{child}" if name else child
