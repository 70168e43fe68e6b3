"""What a stack makes of a sequence of calls: kernels that are added, left out, fused and lowered, in this order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from minidl.kernels.meta import KernelCall
from minidl.parallel.block_profile import Call
from minidl.parallel.handle import CollectiveCall

if TYPE_CHECKING:
    from simulator.stacks.stack import Stack

BITS = {"float32": 32, "tfloat32": 32, "bfloat16": 16, "float16": 16, "float8": 8, "int8": 8, "float4": 4}  # in memory
IN_CHAINS = ("elementwise", "normalisation", "reduction", "copy")
ACCUMULATION = ("accumulate", "assign")  # of the gradient of a parameter


def rewritten(stack: Stack, calls: Sequence[Call], precision: str) -> Sequence[Call]:
    """See `Stack.rewrite`."""
    found: Iterable[Call] = calls
    if not stack.tensor_overlap:
        found = _waited_for(found)
    if stack.extra:
        found = _with_extra(found, stack)
    if stack.accumulates_in_products:
        found = _added_up_by_products(list(found))
    if stack.fused or stack.fused_chains:
        found = _fused(list(found), stack)
    if stack.update_at_once:
        found = _updates_at_once(list(found))
    passes, updates = stack.passes != 1, stack.update_passes != 1
    if passes or updates:
        found = (_moving(call, stack) for call in found)
    if precision != "float32" or stack.products:
        found = _lowered(found, precision, stack)
    return found if found is calls else list(found)


def _waited_for(calls: Iterable[Call]) -> Iterator[Call]:
    """Each collective is waited for where it is started."""
    for call in calls:
        if not isinstance(call, CollectiveCall):
            yield call
        elif call.phase != "wait":
            yield replace(call, phase="") if call.phase else call


def _with_extra(calls: Iterable[Call], stack: Stack) -> Iterator[Call]:
    for call in calls:
        yield call
        if isinstance(call, KernelCall):
            for extra in stack.extra:
                if extra.after == call.name:
                    moved = extra.passes / extra.kernels / 2 * _made(call)
                    shape = call.shapes[-1] if call.kind != "product" else _result(call)
                    one = KernelCall("extra", "elementwise", (shape, shape), call.dtype, math.prod(shape), moved, moved)
                    yield from [one] * extra.kernels


def _added_up_by_products(calls: list[Call]) -> Iterator[Call]:
    """The calls without those that add up gradients: the product that makes one reads and writes their sum."""
    sums = {call.shapes[-1] for call in calls if _adds_up_gradients(call) and call.name == "accumulate"}
    for call in calls:
        if isinstance(call, KernelCall) and call.options == ("TN", False) and call.shapes[0][1:3] in sums:
            call = replace(call, options=("TN", True), bytes_read=call.bytes_read + call.bytes_written)
        if not _adds_up_gradients(call):
            yield call


def _adds_up_gradients(call: Call) -> bool:
    """Whether it adds the gradient of a parameter to what there is of it, or puts it there."""
    return call.name in ACCUMULATION and len(set(call.shapes)) == 1 if isinstance(call, KernelCall) else False


# Fusion


def _fused(calls: list[Call], stack: Stack) -> list[Call]:
    """The calls in which groups of kernels in a row are one. Views between them are none; collectives part them."""
    by_first: dict[str, list[tuple[str, ...]]] = {}
    for names in sorted(stack.fused, key=len, reverse=True):
        by_first.setdefault(names[0], []).append(names)
    found: list[Call] = []
    run: list[KernelCall] = []  # kernels since the last collective, without views

    def end_run() -> None:
        if run:
            found.extend(_fused_run(run, by_first, stack.fused_chains))
            run.clear()

    for call in calls:
        if isinstance(call, CollectiveCall):
            end_run()
            found.append(call)
        elif call.kind != "view":
            run.append(call)
    end_run()
    return found


def _fused_run(run: list[KernelCall], by_first: dict[str, list[tuple[str, ...]]], chains: bool) -> Iterator[KernelCall]:
    start = 0
    while start < len(run):
        end = start + 1
        for names in by_first.get(run[start].name, ()):
            if all(call.name == name for call, name in zip(run[start:], names, strict=False)):
                if len(run) - start >= len(names) and all(
                    map(_takes, run[start + 1 :], run[start : start + len(names) - 1])
                ):
                    end = start + len(names)
                    break
        if chains and run[start].kind in IN_CHAINS:
            while end < len(run) and run[end].kind in IN_CHAINS and _takes(run[end], run[end - 1]):
                end += 1
        yield run[start] if end == start + 1 else _as_one(run[start:end])
        start = end


def _takes(call: KernelCall, before: KernelCall) -> bool:
    """Whether a kernel may take what the one before it has made: one of its arrays is as large."""
    made = math.prod(_result(before))
    return any(math.prod(shape) == made for shape in call.shapes[:-1])


def _as_one(calls: list[KernelCall]) -> KernelCall:
    """A kernel that does what several did: what each but the last has made is neither written nor read.

    It is written where the last one puts elements together: others want them too.
    """
    first, last = calls[0], calls[-1]
    between = [*map(_made, calls[:-1])]
    read = sum(c.bytes_read for c in calls) - sum(between)
    written = sum(c.bytes_written for c in calls) - sum(between[:-1] if last.kind == "reduction" else between)
    product = first.kind == "product"
    kind = first.kind if product else next((c.kind for c in calls if c.kind == "normalisation"), last.kind)
    return KernelCall(
        first.name if product else "+".join(c.name for c in calls), kind, first.shapes if product else last.shapes,
        last.dtype, sum(c.flops for c in calls), max(read, 0), max(written, 0), first.options, first.algorithm,
        sum(c.recomputed for c in calls),
    )  # fmt: skip


def _result(call: KernelCall) -> tuple[int, ...]:
    """The shape of what a kernel makes."""
    if call.kind == "product" and call.name == "matmul":
        batch, m, n, _ = call.shapes[0]
        return batch, m, n
    return call.shapes[-1]


def _made(call: KernelCall) -> int:
    """Bytes of what a kernel makes."""
    return math.prod(_result(call)) * (8 if call.dtype in ("int64", "float64") else 1 if call.dtype == "bool" else 4)


def _updates_at_once(calls: list[Call]) -> list[Call]:
    updates = [call for call in calls if isinstance(call, KernelCall) and call.kind == "update"]
    if len(updates) < 2:
        return calls
    total = {name: sum(getattr(call, name) for call in updates) for name in ("flops", "bytes_read", "bytes_written")}
    others = [call for call in calls if not isinstance(call, KernelCall) or call.kind != "update"]
    return [*others, replace(updates[0], **total)]


# Bytes and dtypes


def _moving(call: Call, stack: Stack) -> Call:
    """The call with the bytes that it moves in this stack."""
    if isinstance(call, CollectiveCall) or call.kind in ("product", "convolution", "view"):
        return call
    factor = stack.update_passes if call.kind == "update" else stack.passes
    return replace(call, bytes_read=call.bytes_read * factor, bytes_written=call.bytes_written * factor)


def _lowered(calls: Iterable[Call], precision: str, stack: Stack) -> Iterator[Call]:
    """The calls with numbers of `precision` in place of float32, and the products of linear layers in their dtype."""
    scale, products = BITS[precision] / BITS["float32"], stack.products
    in_tiles = stack.attention == "flash"  # no product of attention then: a batch of them is those of experts
    for c in calls:
        if not isinstance(c, KernelCall) or c.dtype != "float32" or c.kind == "update":
            yield c
            continue
        dtype, read = precision, c.bytes_read * scale
        if products == "tfloat32":
            dtype = products if c.kind in ("product", "convolution") else precision
        elif products and c.kind == "product" and c.name == "matmul" and (c.shapes[0][0] == 1 or in_tiles):
            dtype, own = products, BITS[products] / BITS[precision]
            if stack.cast_passes:
                batch, m, n, k = c.shapes[0]
                moved = stack.cast_passes * batch * (m * k + k * n) * BITS[precision] / 8
                yield KernelCall("cast", "copy", ((m, k),), precision, 0, moved / 2, moved / 2)
            read *= min(own, 1.0)
        yield KernelCall(
            c.name, c.kind, c.shapes, dtype, c.flops, read, c.bytes_written * scale, c.options, c.algorithm,
            c.recomputed,
        )  # fmt: skip
