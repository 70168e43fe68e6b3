"""Few micro-batches: how many of a schedule are enough to see how its orders go on with any number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from minidl.parallel.plan import Plan
from minidl.parallel.schedules import Pass, Schedule, schedule_of


def few_micro_batches(plan: Plan, chunks: Sequence[int], left: int) -> int | None:
    """Micro-batches with which some rounds are `left` of the orders of all stages; None where no more are there.

    chunks: how many each stage holds. The schedule is one by name: what it does with these few and with some more of
    them shows how it goes on.
    """
    few = _few(plan.schedule, plan.pipeline, tuple(chunks), left)
    return few if few is not None and few < plan.micro_batches else None


def of_a_round(plan: Plan) -> int:
    """How many micro-batches a round of the plan's schedule has."""
    return plan.pipeline if schedule_of(plan.schedule).whole_rounds else 1


@lru_cache(1024)
def _few(schedule: str, stages: int, chunks: tuple[int, ...], left: int) -> int | None:
    kind = schedule_of(schedule)
    shift = stages if kind.whole_rounds else 1
    return _few_of(kind, stages, stages + shift * (left + 4), chunks, shift, left)  # lead in, the rounds, lead out


def _few_of(
    kind: Schedule, stages: int, micro_batches: int, chunks: tuple[int, ...], shift: int, left: int
) -> int | None:
    """The `few_micro_batches` of a step of so many, looked up in its orders. shift: micro-batches of a round."""
    whole = [list(kind.order(stage, stages, micro_batches, chunks[stage])) for stage in range(stages)]
    found = [_steady(passes, shift, micro_batches) for passes in whole]
    removed = min(rounds for _, _, rounds in found) - left
    if removed <= 0:
        return None
    few = micro_batches - removed * shift
    for stage, (passes, (start, length, _)) in enumerate(zip(whole, found, strict=True)):
        rest = [Pass(k, m - removed * shift, chunk) for k, m, chunk in passes[start + removed * length :]]
        if passes[:start] + rest != list(kind.order(stage, stages, few, chunks[stage])):
            return None
    return few


def _steady(passes: list[Pass], shift: int, micro_batches: int) -> tuple[int, int, int]:
    """Where the rounds of an order begin, how many passes one has, and how many there are.

    Without the first and the last pass of each kind that a round has: of their instructions there are more.
    """
    length = len(passes) * shift // micro_batches
    start, alike = longest([(k, m + shift, c) == p for (k, m, c), p in zip(passes, passes[length:], strict=False)])
    kinds = {(kind, chunk) for kind, _, chunk in passes[start : start + length]}
    begin = max(start, _all_come(passes, kinds))
    end = min(start + alike + length, len(passes) - _all_come(reversed(passes), kinds))
    return begin, length, max(0, end - begin) // length


def _all_come(passes: Iterable[Pass], kinds: set[tuple[str, int]]) -> int:
    """How many passes it takes until each of these kinds, which all are among them, has come."""
    missing = set(kinds)
    for count, (kind, _, chunk) in enumerate(passes, 1):
        missing.discard((kind, chunk))
        if not missing:
            return count
    raise AssertionError("each kind is of one of the passes")


def longest(truths: Sequence[bool]) -> tuple[int, int]:
    """Where the longest run of truths begins, and its length."""
    marks = bytes(truths)
    best = max(map(len, marks.split(b"\0")))
    return marks.find(b"\1" * best), best
