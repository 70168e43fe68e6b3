"""Rules: what instructions make of the tags that the checker has in buffers.

A rule refuses what does not belong together: labels of other samples, a share of parameters where all are needed,
gradients that lack a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from minidl.parallel import instructions as I
from minidl.parallel.demands import (
    check_apart,
    check_buckets,
    check_gradients,
    check_norms,
    check_own_share,
    check_replicas,
    check_samples,
    check_slots,
    whole_version,
    whole_versions,
)
from minidl.parallel.instructions import BufferName, Instruction
from minidl.parallel.instructions import buffers as B
from minidl.parallel.instructions.buffers import APART
from minidl.parallel.tags import (
    MEASURED,
    REDUCED,
    Brought,
    Facts,
    Gathered,
    ProgramError,
    RankTags,
    Samples,
    Sum,
    Tag,
    Tags,
    Version,
)

NO_SUM = Sum(Samples())

# Rules for what computes: of a rank and an instruction, to the tags of what is written


def _load(facts: Facts, rank: RankTags, i: I.LoadInput | I.LoadTarget) -> Tags:
    return {buffer: Tag(rank.mesh.replica, i.micro_batch, 0) for buffer in i.writes}


def _forward(facts: Facts, rank: RankTags, i: I.Forward | I.Infer) -> Tags:
    buckets, (x, *_) = facts.layout.buckets[i.chunk], i.reads
    tag = rank.tags[x]
    if tag.blocks != buckets[i.first][0] or tag.micro_batch != i.micro_batch:
        raise ProgramError(f"rank {rank.number}: {i} gets {tag}")
    statistics = B.statistics(i.chunk)
    if isinstance(i, I.Infer) and facts.statistics and rank.tags[statistics] != 0:
        raise ProgramError(f"rank {rank.number}: {i} takes the {statistics} of replica {rank.tags[statistics]}, not 0")
    versions, kept, first = whole_versions(rank, i), 0, i.first
    tags: Tags = {}
    for buffer in i.writes:
        holds, _, _, b = buffer
        if holds == "saved":
            tags[buffer] = Tag(tag.replica, tag.micro_batch, buckets[b][0]), versions[b - first]
            kept += 1
        elif holds == "activation":
            tags[buffer] = Tag(tag.replica, tag.micro_batch, buckets[b][1])
        elif buffer == statistics:
            tags[buffer] = rank.tags[buffer]
    if kept:
        rank.keep(i, kept)
    check_apart(facts, rank, i)
    return tags


def _recompute(facts: Facts, rank: RankTags, i: I.Recompute) -> Tags:
    tag = rank.tags[i.reads[0]]
    if tag.blocks != facts.layout.buckets[i.chunk][i.first][0] or tag.micro_batch != i.micro_batch:
        raise ProgramError(f"rank {rank.number}: {i} gets {tag}")
    rank.keep(i, 1)
    check_apart(facts, rank, i)
    return {i.writes[0]: (tag, whole_version(rank, i, (i.chunk, i.first)))}


def _loss(facts: Facts, rank: RankTags, i: I.Loss | I.Score) -> Tags:
    output, target = (rank.tags[buffer] for buffer in i.reads)
    if output.samples != target.samples or output.blocks != facts.layout.chunks[-1][1]:
        raise ProgramError(f"rank {rank.number}: {i} compares {output} with the labels of {target}")
    found = Sum(facts.samples([output.samples]))
    return {buffer: found if buffer.holds == "loss" else output for buffer in i.writes}


def _backward(facts: Facts, rank: RankTags, i: I.Backward) -> Tags:
    tags = _go_back(facts, rank, i)
    return tags | _add_gradients(facts, rank, i, i.frees[1:])


def _backward_input(facts: Facts, rank: RankTags, i: I.BackwardInput) -> Tags:
    check_apart(facts, rank, i)
    left = {B.later(i.chunk, i.micro_batch, b): rank.tags[B.saved(i.chunk, i.micro_batch, b)] for b in i.buckets}
    return _go_back(facts, rank, i) | left


def _backward_weights(facts: Facts, rank: RankTags, i: I.BackwardWeights) -> Tags:
    return _add_gradients(facts, rank, i, i.frees)


def _go_back(facts: Facts, rank: RankTags, i: I.Backward | I.BackwardInput) -> Tags:
    """The gradient meets what forward kept, block after block."""
    buckets, (used_up, *kept) = facts.layout.buckets[i.chunk], i.frees
    gradient, versions, held = rank.tags[used_up], whole_versions(rank, i), rank.tags
    back = i.buckets[::-1]
    for b, buffer, taken in zip(back, kept[len(back) - 1 :: -1], reversed(versions), strict=True):
        saved, version = held[buffer]
        if gradient != (saved.replica, saved.micro_batch, buckets[b][1]):
            raise ProgramError(f"rank {rank.number}: {i} meets the gradient of {gradient} with what {saved} saved")
        if version != taken:
            raise ProgramError(f"rank {rank.number}: {i} goes back by other parameters than forward took")
        gradient = saved
    return {buffer: gradient for buffer in i.writes if buffer.holds == "output gradient"}


def _add_gradients(facts: Facts, rank: RankTags, i: I.Backward | I.BackwardWeights, kept: Sequence[BufferName]) -> Tags:
    """The gradients of parameters, made of what each bucket has `kept` of a micro-batch, of which nothing is left.

    Those of what is apart have each sample once for each of the blocks that give it a gradient.
    """
    check_apart(facts, rank, i)
    tags: Tags = {}
    lie, slots = i.gradients, dict(i.local)
    held, accumulates, of, to, found = rank.tags, i.accumulates, None, None, None  # most buckets have the same
    for b, place, buffer, gradients in zip(i.buckets, i.places, kept, lie, strict=False):
        samples = held[buffer][0].samples
        before = held[gradients] if accumulates else Sum(Samples(), place=place) if place in slots else NO_SUM
        if before is not to or samples != of:
            of, to, found = samples, before, before._replace(samples=before.samples + facts.sample(samples))
        tags[gradients] = found
        for n in facts.layout.apart_in(i.chunk, range(b, b + 1), trained=True) if i.apart else ():
            place = APART, n
            gradients = lie[len(i.buckets) + i.apart.index(n)]
            there = gradients in tags or n not in i.new_apart
            new = Sum(Samples(), place=place if place in slots else None)
            so_far = tags.get(gradients, rank.tags.get(gradients)) if there else new
            more = facts.found(n, rank.mesh, samples, i.chunk, b)
            tags[gradients] = so_far._replace(samples=so_far.samples + more)
    rank.drop(i)
    return tags


def _add_share(facts: Facts, rank: RankTags, i: I.AddShare) -> Tags:
    """A share of what all replicas have found of a micro-batch, added to those of the micro-batches before."""
    check_slots(facts, rank, i)
    found = rank.tags[i.slot]
    if found.place != (i.chunk, i.bucket) or found.whole:
        raise ProgramError(f"rank {rank.number}: {i} needs a share of what is reduced of that bucket, not {found}")
    before = rank.tags[B.gradients(i.chunk, i.bucket)].samples if i.accumulates else Samples()
    return {B.gradients(i.chunk, i.bucket): Sum(before + found.samples, whole=False)}


def _measure(facts: Facts, rank: RankTags, i: I.MeasureParameters) -> Tags:
    check_gradients(facts, rank, i)
    return {buffer: MEASURED for buffer in i.writes if buffer.holds == "norms"}


def _update(facts: Facts, rank: RankTags, i: I.OptimizerStep) -> Tags:
    check_gradients(facts, rank, i)
    check_norms(rank, i, REDUCED)
    return {
        buffer: Version(rank.tags[buffer].updates + 1, (buffer.chunk, buffer.bucket) not in i.sharded)
        for buffer in i.writes
        if buffer.holds == "parameters"
    }


def _end_evaluation(facts: Facts, rank: RankTags, i: I.EndEvaluation) -> Tags:
    check_samples(facts, rank, B.TOTAL)
    return {}


# Rules for collectives: of a rank, an instruction and what all have brought, to the tags of what is written


def _reduce(facts: Facts, rank: RankTags, i: Instruction, brought: Brought) -> Tags:
    return {buffer: Sum(brought.samples) for buffer in i.writes}


def _reduce_gradients(facts: Facts, rank: RankTags, i: I.ReduceGradients | I.SumParts, brought: Brought) -> Tags:
    check_slots(facts, rank, i)
    if isinstance(i, I.ReduceScatterGradients):
        check_replicas(facts, rank, i)
    place = (APART, i.apart) if isinstance(i, I.SumParts) else (i.chunk, i.bucket)
    places = {tag.place for tag in brought.tags}
    if places != {place if i.slot else None}:
        raise ProgramError(f"rank {rank.number}: {i} finds there those of other buckets, {places}")
    whole = not isinstance(i, I.ReduceScatterGradients)
    return {buffer: Sum(brought.samples, whole, place if i.slot else None) for buffer in i.writes}


def _gather(facts: Facts, rank: RankTags, i: I.GatherParameters, brought: Brought) -> Tags:
    check_replicas(facts, rank, i)
    check_slots(facts, rank, i)
    versions = set(brought.tags)
    if len(versions) > 1 or any(version.whole for version in versions):
        raise ProgramError(f"rank {rank.number}: {i} needs a share of the same version of every replica, once")
    version = Version(versions.pop().updates, True)
    return {buffer: Gathered((i.chunk, i.bucket), version) if i.slot else version for buffer in i.writes}


def _broadcast(facts: Facts, rank: RankTags, i: I.BroadcastStatistics, brought: Brought) -> Tags:
    return dict.fromkeys(i.writes, min(brought.tags))  # the first of the group has the first replica's


def _reduce_norm(facts: Facts, rank: RankTags, i: I.ReduceNorm, brought: Brought) -> Tags:
    check_gradients(facts, rank, i)
    return {}


def _reduce_norms(facts: Facts, rank: RankTags, i: I.ReduceParameterNorms, brought: Brought) -> Tags:
    check_buckets(facts, rank, i)
    check_norms(rank, i, MEASURED)
    return dict.fromkeys(i.writes, REDUCED)


def _custom(facts: Facts, rank: RankTags, i: I.CustomInstruction, *brought: Brought) -> Tags:
    check_own_share(facts, rank, i)
    return i.prove(facts, rank, *brought)


def rule_of(rules: Mapping[type[Instruction], Callable], rank: RankTags, i: Instruction) -> Callable:
    """The rule of an instruction, of COMPUTE_RULES or COLLECTIVE_RULES; one that writes nothing needs none."""
    if isinstance(i, I.CustomInstruction):
        return _custom
    if i.writes and type(i) not in rules:
        raise ProgramError(f"rank {rank.number}: there is no rule by which {i} is proved")
    return rules.get(type(i), lambda *_: {})


COMPUTE_RULES: dict[type[Instruction], Callable[[Facts, RankTags, Instruction], Tags]] = {
    I.LoadInput: _load,
    I.LoadTarget: _load,
    I.Forward: _forward,
    I.Infer: _forward,
    I.Loss: _loss,
    I.Score: _loss,
    I.Recompute: _recompute,
    I.Backward: _backward,
    I.BackwardInput: _backward_input,
    I.BackwardWeights: _backward_weights,
    I.AddShare: _add_share,
    I.MeasureParameters: _measure,
    I.OptimizerStep: _update,
    I.EndEvaluation: _end_evaluation,
}

COLLECTIVE_RULES: dict[type[Instruction], Callable[[Facts, RankTags, Instruction, Brought], Tags]] = {
    I.ReduceGradients: _reduce_gradients,
    I.ReduceScatterGradients: _reduce_gradients,
    I.SumParts: _reduce_gradients,
    I.ReduceLoss: _reduce,
    I.GatherParameters: _gather,
    I.BroadcastStatistics: _broadcast,
    I.ReduceNorm: _reduce_norm,
    I.ReduceParameterNorms: _reduce_norms,
}
