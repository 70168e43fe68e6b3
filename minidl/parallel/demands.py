"""What rules demand of an instruction and its buffers: whole parameters, every sample once, the plan's shares."""

from __future__ import annotations

from minidl.parallel import instructions as I
from minidl.parallel.instructions import BufferName, Instruction
from minidl.parallel.instructions import buffers as B
from minidl.parallel.instructions.buffers import APART
from minidl.parallel.tags import Facts, ProgramError, RankTags, Version


def whole_version(rank: RankTags, i: I.ThroughBuckets, place: tuple[int, int]) -> Version:
    """The version of the parameters of a bucket, which must be there whole: in a slot, if it says so."""
    slot = dict(i.gathered).get(place)
    version = rank.tags[slot or B.parameters(*place)]
    if slot:
        if version.place != place:
            raise ProgramError(
                f"rank {rank.number}: {i} takes {B.parameters(*place)}, and {slot} has {B.parameters(*version.place)}"
            )
        return version.version
    if not version.whole:
        taken = B.parameters(*place)
        raise ProgramError(f"rank {rank.number}: {i} takes {taken}, of which this replica has its share alone")
    return version


def check_apart(facts: Facts, rank: RankTags, i: I.ThroughBuckets) -> None:
    """It knows of what is apart in its blocks, and what it reads of that is whole."""
    held = facts.layout.apart_in(i.chunk, i.buckets, trained=isinstance(i, I.GivesGradients))
    if i.apart != held:
        raise ProgramError(f"rank {rank.number}: {i} needs what is apart there, {held}")
    if not isinstance(i, I.BackwardWeights):  # which reads none
        for n in i.apart:
            whole_version(rank, i, (APART, n))


def check_buckets(facts: Facts, rank: RankTags, i: Instruction) -> None:
    """It is about every bucket of the rank that is trained, once each, and about shares where the plan says so."""
    stage = rank.mesh.coordinate("pipeline")
    trained = facts.layout.counted(stage) if isinstance(i, I.ReduceNorm) else facts.layout.trained(stage)
    if sorted(i.buckets) != sorted(trained):
        raise ProgramError(f"rank {rank.number}: {i} needs each of the {len(trained)} buckets of the rank once")
    if isinstance(i, I.OptimizerStep) and i.sharded != (needed := tuple(p for p in trained if _shards(facts, p) > 1)):
        raise ProgramError(f"rank {rank.number}: {i} needs sharded={needed}: the plan is {facts.plan}")
    if isinstance(i, I.ReduceNorm | I.ReduceParameterNorms):
        axes = (*["pipeline"] * isinstance(i, I.ReduceNorm), *facts.plan.parted)
        if i.axes != axes:
            raise ProgramError(f"rank {rank.number}: {i} needs axes={axes}: the plan is {facts.plan}")


def check_gradients(facts: Facts, rank: RankTags, i: Instruction) -> None:
    """The gradients of every bucket of the rank are there, with all samples in them; so is the total that it reads."""
    check_buckets(facts, rank, i)
    for buffer in i.reads:
        if buffer.holds in ("gradients", "total"):
            check_samples(facts, rank, buffer)
        if buffer.holds == "gradients":
            sharded = _shards(facts, (buffer.chunk, buffer.bucket)) > 1
            if rank.tags[buffer].whole == sharded:
                needs = "shares of gradients" if sharded else "whole gradients"
                raise ProgramError(f"rank {rank.number}: {i} needs {needs}: the plan is {facts.plan}")


def _shards(facts: Facts, place: tuple[int, int]) -> int:
    """Into how many shares the update of a bucket is cut."""
    return facts.plan.shards(facts.layout.reduction(*place).replicas)


def check_norms(rank: RankTags, i: Instruction, needed: str) -> None:
    for buffer in i.reads:
        if buffer.holds == "norms" and rank.tags[buffer] != needed:
            raise ProgramError(f"rank {rank.number}: {i} needs {buffer} {needed}, and they are {rank.tags[buffer]}")


def check_samples(facts: Facts, rank: RankTags, buffer: BufferName) -> None:
    samples, needed = rank.tags[buffer].samples, facts.needed(buffer)
    if samples != needed:
        lost, twice = needed - samples, samples - needed
        what = f"lack {sorted(lost)}" if lost else f"count {sorted(twice)} more than once"
        raise ProgramError(f"rank {rank.number}: {buffer} {what} (replica, micro-batch) of the global batch")
