"""Layout: where the blocks of a chain are, in which chunk, bucket and stage, and what is reduced over which ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise

from minidl.parallel.instructions.buffers import APART
from minidl.parallel.mesh import REPLICAS, Axis
from minidl.parallel.partition import Range, buckets, partition
from minidl.parallel.plan import Plan

Holders = tuple[tuple[int, int], ...]  # blocks that hold a parameter, in order, and its place among those of each


@dataclass(frozen=True)
class Reduction:
    """Over which ranks the gradient of a parameter is summed.

    replicas: the axes along which ranks have the same part of it and work on other data. also: axes along which each
    rank finds a part of the gradient alone, though they work on the same data.
    """

    replicas: tuple[str, ...] = REPLICAS
    also: tuple[Axis, ...] = ()


USUAL = Reduction()


@dataclass(frozen=True)
class Apart:
    """Parameters that are not reduced as the others of their blocks are, and so make a bucket of their own.

    One that several blocks hold, or some of one bucket whose gradients are summed over other ranks. parameters: the
    holders of each. trained: the blocks that give a gradient, which are the last ones, if any.
    """

    parameters: tuple[Holders, ...]
    trained: tuple[int, ...]
    reduction: Reduction = USUAL

    @property
    def tied(self) -> bool:
        """Whether several blocks hold the parameter."""
        return any(len(holders) > 1 for holders in self.parameters)

    @property
    def holders(self) -> Holders:
        """Those of all parameters."""
        return tuple(chain.from_iterable(self.parameters))


@dataclass(frozen=True)
class Layout:
    """Where the blocks of the chain are, and how far the gradient goes back.

    chunks: the blocks of each chunk, in the order of the chain. buckets: for each chunk, the blocks of each of its
    buckets, first to last. stages: the chunks that each stage holds, in order: a stage is the ranks of one pipeline
    coordinate. first_trained: the first block to which the gradient goes back; the buckets and chunks before have no
    backward. apart: the parameters that make buckets of their own. tuples: of what each chunk takes, where that is a
    tuple, whether each array is of floats, and so has a gradient; empty for a single array.
    """

    chunks: tuple[Range, ...]
    buckets: tuple[tuple[Range, ...], ...]
    stages: tuple[tuple[int, ...], ...]
    first_trained: int = 0
    apart: tuple[Apart, ...] = ()
    tuples: tuple[tuple[bool, ...], ...] = ()

    def __post_init__(self):
        for chunks in self.stages:
            for one, other in pairwise(chunks):
                if other == one + 1:
                    raise ValueError(
                        f"a stage holds the chunks {one} and {other}: neighbours are one chunk, or on two stages"
                    )

    def stage_of(self, chunk: int) -> int:
        """The stage that holds `chunk`."""
        return self._stage_of[chunk]

    @cached_property
    def _stage_of(self) -> dict[int, int]:
        return {chunk: stage for stage, chunks in enumerate(self.stages) for chunk in chunks}

    def last_bucket(self, chunk: int) -> int:
        return len(self.buckets[chunk]) - 1

    def trained_buckets(self, chunk: int) -> range:
        """The buckets of `chunk` to which the gradient goes back: none, all, or the later ones."""
        return self._trained_buckets[chunk]

    @cached_property
    def _trained_buckets(self) -> list[range]:
        before = [sum(end <= self.first_trained for _, end in buckets) for buckets in self.buckets]
        return [range(first, len(buckets)) for first, buckets in zip(before, self.buckets, strict=True)]

    def places(self, stage: int) -> tuple[tuple[int, int], ...]:
        """The buckets of a stage: as pairs (chunk, bucket) those of chunks, as pairs (APART, number) what is apart."""
        chunks = self.stages[stage]
        buckets = tuple((chunk, b) for chunk in chunks for b in range(len(self.buckets[chunk])))
        return buckets + tuple((APART, n) for n in range(len(self.apart)) if stage in self.stages_of(n))

    def trained(self, stage: int) -> tuple[tuple[int, int], ...]:
        """Those of the `places` that are trained."""
        return tuple((chunk, n) for chunk, n in self.places(stage) if self.is_trained(chunk, n))

    def counted(self, stage: int) -> tuple[tuple[int, int], ...]:
        """Those of the trained places that count here: of the stages that hold a parameter the first one counts it."""
        places = self.trained(stage)
        return tuple((chunk, n) for chunk, n in places if chunk != APART or self.stages_of(n)[0] == stage)

    def is_trained(self, chunk: int, bucket: int) -> bool:
        """Whether a bucket, or what is apart, gets a gradient."""
        return bool(self.apart[bucket].trained) if chunk == APART else bucket in self.trained_buckets(chunk)

    def apart_in(self, chunk: int, buckets: range, trained: bool = False) -> tuple[int, ...]:
        """What blocks of these buckets hold that is apart; if `trained`, that to which they give a gradient."""
        held, run = self._apart_of[trained], self.buckets[chunk]
        found = (held.get(block, ()) for b in buckets for block in range(*run[b]))
        return tuple(sorted(set(chain.from_iterable(found)))) if held else ()

    @cached_property
    def _apart_of(self) -> dict[bool, dict[int, list[int]]]:
        """What is apart in each block that has any: all that it holds, and (True) to which it gives a gradient."""
        found: dict[bool, dict[int, list[int]]] = {False: {}, True: {}}
        for n, apart in enumerate(self.apart):
            for trained, blocks in ((False, {block for block, _ in apart.holders}), (True, apart.trained)):
                for block in blocks:
                    found[trained].setdefault(block, []).append(n)
        return found

    def reduction(self, chunk: int, bucket: int) -> Reduction:
        """That of the parameters of a bucket, or of what is apart."""
        return self.apart[bucket].reduction if chunk == APART else USUAL

    def stages_of(self, apart: int) -> tuple[int, ...]:
        """The stages that hold what is apart, in order."""
        return self._apart_stages[apart]

    @cached_property
    def _apart_stages(self) -> list[tuple[int, ...]]:
        return [self.stages_with({block for block, _ in apart.holders}) for apart in self.apart]

    def stages_with(self, blocks: Iterable[int]) -> tuple[int, ...]:
        """The stages of these blocks, in order."""
        chunks = (n for block in blocks for n, (start, end) in enumerate(self.chunks) if start <= block < end)
        return tuple(sorted(set(map(self.stage_of, chunks))))

    def wants_gradient(self, chunk: int) -> bool:
        """Whether anything before `chunk` waits for the gradient of its input."""
        return self.chunks[chunk][0] > self.first_trained


def layout(
    plan: Plan, costs: Sequence[float], parameter_bytes: Sequence[int], first_trained: int = 0,
    ties: Sequence[Apart] = (), tuples: Sequence[tuple[bool, ...]] = (),
    reductions: Sequence[Mapping[int, Reduction]] = (),
) -> Layout:  # fmt: skip
    """The layout of a chain whose blocks cost `costs`, hold `parameter_bytes` beside what is apart, and take `tuples`.

    ties: parameters that several blocks hold. reductions: of each block, for the places of other parameters that are
    not reduced as usual. Of p stages, s holds the chunks s, s + p and so on. No bucket holds parameters before
    `first_trained`, which have no gradients, and others. ValueError if there are fewer blocks than chunks.
    """
    count, blocks = plan.pipeline * plan.chunks, len(costs)
    if blocks < count:
        asked = f"pipeline={plan.pipeline}" + (f" × chunks={plan.chunks}" if plan.chunks > 1 else "")
        raise ValueError(f"{asked} needs at least {count} blocks, the model has {blocks}")
    chunks = partition(costs, count)
    cut = []
    for start, end in chunks:
        border = min(max(start, first_trained), end) if any(parameter_bytes[start:first_trained]) else start
        halves = [half for half in ((start, border), (border, end)) if half[0] < half[1]]
        cut.append(tuple(b for half in halves for b in buckets(parameter_bytes, half, plan.bucket_mb * 2**20)))
    stages = tuple(tuple(range(stage, count, plan.pipeline)) for stage in range(plan.pipeline))
    taken = tuple(tuples[start] if tuples else () for start, _ in chunks)
    apart = *ties, *chain.from_iterable(_apart(run, reductions) for run in chain.from_iterable(cut) if reductions)
    found = Layout(chunks, tuple(cut), stages, first_trained, apart, taken)
    for number, tie in enumerate(ties):
        first, *_, last = (block for block, _ in tie.holders)
        if tie.trained and found.stages_with(tie.trained) != found.stages_of(number):
            raise ValueError(
                f"blocks {first} and {last} share a parameter, but no gradient goes back to block {first}: only one "
                "stage can train that"
            )
    return found


def _apart(run: Range, reductions: Sequence[Mapping[int, Reduction]]) -> Iterator[Apart]:
    """What is not reduced as usual of the blocks of a bucket: what is reduced alike lies together."""
    alike: dict[Reduction, list[tuple[int, int]]] = {}
    for block in range(*run):
        for place, reduction in reductions[block].items():
            alike.setdefault(reduction, []).append((block, place))
    for reduction, held in alike.items():
        yield Apart(tuple((one,) for one in held), tuple(sorted({block for block, _ in held})), reduction)
