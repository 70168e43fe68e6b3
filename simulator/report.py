"""A prediction for people: a title, a table of two columns, and by how much a plan does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from minidl.trace import idle_name
from minidl.units import counted, duration, in_words, rate, scaled

if TYPE_CHECKING:
    from simulator.prediction import Prediction

ROUNDING = 1e-9  # of a step: a part of it that is smaller, or negative, is a difference of rounded numbers


def title(p: Prediction, model: str = "") -> str:
    """Two lines: the model and the plan; on what it was predicted."""
    workers, cluster = p.plan.workers, p.cluster
    if cluster.processors is not None:
        where = f"{counted(workers, 'worker')} on {cluster.size}"
    else:
        where = cluster.size + (f", {workers:,} used" if workers < cluster.devices else "")
    return f"{model} · {p.plan}\n{where}, predicted".removeprefix(" · ")


def rows(p: Prediction, tokens: float | None = None) -> Iterator[tuple[str, str]]:
    """Names and values. tokens: to train on, of a model whose samples are sequences."""
    yield "batch", counted(p.batch_size, "sample") + (f" of {counted(p.sequence, 'token')}" if p.sequence else "")
    yield "assumed", f"{p.plan.precision}, {p.optimizer}, {p.loss}"
    yield "software", p.stack.name + (f", fitted: all times × {p.pace:.3g}" if p.pace != 1 else "")
    for place, axis in enumerate(p.placement.axes):
        yield "" if place else "placement", str(axis)
    yield "step", duration(p.step_seconds)
    for what, seconds in p.breakdown.items():
        shown = seconds if seconds > ROUNDING * p.step_seconds else 0.0
        name = idle_name(p.plan.workers) if what == "bubble" else what
        yield f"  {name}", f"{duration(shown)} ({shown / p.step_seconds:.0%})"
    throughput = rate(p.throughput, "samples")
    if p.tokens_per_second is not None:
        throughput += f", {rate(p.tokens_per_second, 'tokens')}"
    yield "throughput", throughput
    if tokens is not None:
        yield in_words(tokens, "tokens"), duration(p.seconds_for(tokens))
    yield "model FLOPs utilisation", f"{p.mfu:.1%}"
    fits = "fits" if p.fits else "does NOT fit"
    yield "memory, fullest device", f"{scaled(p.memory_bytes, 'B')} of {scaled(p.cluster.memory_bytes, 'B')}: {fits}"
    for what, nbytes in asdict(p.memory[p.fullest_stage]).items():
        yield f"  {what}", scaled(nbytes, "B")
    if beside := p.memory_bytes - p.memory[p.fullest_stage].total:
        yield "  beside arrays", scaled(beside, "B")


def misfit(p: Prediction) -> str | None:
    """By how much the plan does not fit, in a line; None if it does."""
    if p.fits:
        return None
    needed, there = p.memory_bytes, p.cluster.memory_bytes
    stage = f" (stage {p.fullest_stage})" if p.plan.pipeline > 1 else ""
    return (
        f"does not fit: {scaled(needed, 'B')} of {scaled(there, 'B')}, {scaled(needed - there, 'B')} too much on the "
        f"fullest device{stage}"
    )


def remedy(p: Prediction) -> str:
    """With which changes of the plan it would fit, in a line."""
    ways = [f"{way} ({scaled(way.memory_bytes, 'B')})" for way in p.ways_to_fit]
    if not ways:
        return "No change of the plan that was tried makes it fit on as many devices: it needs more of them."
    return f"It would fit with {', or with '.join(ways)}."


def times(measured: float | None, simulated: float) -> str:
    """The measured and the simulated time, or the latter alone; the unit once, if it is the same."""
    number, unit = duration(simulated).rsplit(" ", 1)
    if measured is None:
        return f"{number} {unit}"
    before, other = duration(measured).rsplit(" ", 1)
    return f"{before}/{number} {unit}" if unit == other else f"{before} {other}/{number} {unit}"
