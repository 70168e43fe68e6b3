"""What rules demand of an instruction and its buffers: whole parameters, every sample once, the plan's shares."""

from __future__ import annotations

from minidl.parallel import instructions as I
from minidl.parallel.instructions import BufferName, Instruction
from minidl.parallel.instructions import buffers as B
from minidl.parallel.instructions.buffers import APART
from minidl.parallel.slots import sharded, shards
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


def whole_versions(rank: RankTags, i: I.ThroughBuckets) -> list[Version]:
    """Those of all its buckets."""
    versions = [rank.tags[b] for b in i.parameters[: len(i.buckets)]]
    if i.gathered or not all(version.whole for version in versions):
        return [whole_version(rank, i, (i.chunk, b)) for b in i.buckets]
    return versions


def check_slots(facts: Facts, rank: RankTags, i: Instruction) -> None:
    """It works on each bucket where the worker has it: in the slot of that bucket, or where it is kept."""
    dropped, local = facts.dropped[rank.stage], facts.slots[rank.stage]
    if isinstance(i, I.ThroughBuckets):
        reads = () if isinstance(i, I.BackwardWeights) else i.places
        wrong = i.gathered != tuple((p, B.gathered(rank.stage, dropped[p])) for p in reads if p in dropped)
        if isinstance(i, I.GivesGradients):
            wrong |= i.local != tuple((p, B.local_gradients(rank.stage, local[p])) for p in i.places if p in local)
    else:
        place = (APART, i.apart) if isinstance(i, I.SumParts) else (i.chunk, i.bucket)
        named, lie = (B.gathered, dropped) if isinstance(i, I.GatherParameters) else (B.local_gradients, local)
        wrong = i.slot != (named(rank.stage, lie[place]) if place in lie else None)
    if wrong:
        raise ProgramError(f"rank {rank.number}: {i} needs slots as sharding={facts.plan.sharding!r} has them")


def check_own_share(facts: Facts, rank: RankTags, i: I.CustomInstruction) -> None:
    """It changes no whole parameters that are sharded: replicas may have one copy of them, that all would change."""
    for buffer in i.writes:
        if buffer.holds == "parameters" and shards(facts.plan, facts.layout, (buffer.chunk, buffer.bucket)) > 1:
            if rank.tags[buffer].whole:
                raise ProgramError(
                    f"rank {rank.number}: {i} changes all of {buffer}, of which this replica updates a share: "
                    "change that, between the update and the gather"
                )


def check_apart(facts: Facts, rank: RankTags, i: I.ThroughBuckets) -> None:
    """It knows of what is apart in its blocks, and what it reads of that is whole; and where all that lies."""
    if facts.fits.get((rank.stage, id(i.work))) is not i.work:
        check_slots(facts, rank, i)
        held = facts.layout.apart_in(i.chunk, i.buckets, trained=isinstance(i, I.GivesGradients))
        if i.apart != held:
            raise ProgramError(f"rank {rank.number}: {i} needs what is apart there, {held}")
        facts.fits[rank.stage, id(i.work)] = i.work
    if not isinstance(i, I.BackwardWeights):  # which reads none
        for n in i.apart:
            whole_version(rank, i, (APART, n))


def check_replicas(facts: Facts, rank: RankTags, i: I.ReduceScatterGradients | I.GatherParameters) -> None:
    """It is among all replicas of its bucket: so many have shares of it."""
    replicas = facts.plan.spread(facts.layout.reduction(i.chunk, i.bucket).replicas)
    if i.axes != replicas:
        raise ProgramError(f"rank {rank.number}: {i} needs axes={replicas}: the plan is {facts.plan}")


def check_buckets(facts: Facts, rank: RankTags, i: Instruction) -> None:
    """It is about every bucket of the rank that is trained, once each, and about shares where the plan says so."""
    stage = rank.stage
    trained = facts.layout.counted(stage) if isinstance(i, I.ReduceNorm) else facts.layout.trained(stage)
    if sorted(i.buckets) != sorted(trained):
        raise ProgramError(f"rank {rank.number}: {i} needs each of the {len(trained)} buckets of the rank once")
    needed = sharded(facts.plan, facts.layout, stage)
    if isinstance(i, I.OptimizerStep) and i.sharded != needed:
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
            shares = shards(facts.plan, facts.layout, (buffer.chunk, buffer.bucket)) > 1
            if rank.tags[buffer].whole == shares:
                needs = "shares of gradients" if shares else "whole gradients"
                raise ProgramError(f"rank {rank.number}: {i} needs {needs}: the plan is {facts.plan}")


def check_norms(rank: RankTags, i: Instruction, needed: str) -> None:
    for buffer in i.reads:
        if buffer.holds == "norms" and rank.tags[buffer] != needed:
            raise ProgramError(f"rank {rank.number}: {i} needs {buffer} {needed}, and they are {rank.tags[buffer]}")


def check_samples(facts: Facts, rank: RankTags, buffer: BufferName) -> None:
    samples, needed = rank.tags[buffer].samples, facts.needed(buffer)
    if samples != needed:
        lost, more = needed.there & ~samples.there, samples.twice | samples.there & ~needed.there
        what = f"lack {facts.names(lost)}" if lost else f"count {facts.names(more)} more than once"
        raise ProgramError(f"rank {rank.number}: {buffer} {what} (replica, micro-batch) of the global batch")
