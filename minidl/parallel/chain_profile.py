"""What a chain costs: the profiles of its blocks, found by running them on the meta device.

The layout of a pipeline and the simulator read these profiles; nothing else knows what a model costs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TypeVar

from minidl.creation import device
from minidl.kernels import meta
from minidl.kernels.meta import MetaArray
from minidl.nn.containers import Sequential
from minidl.nn.losses import CrossEntropyLoss, Loss
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.nn.repeated import Touched, distinct, one_of_each
from minidl.parallel import blocks
from minidl.parallel.block_profile import Arrays, BlockProfile, Call, profile_block
from minidl.parallel.blocks import each, several
from minidl.parallel.contracts import check_builder, check_optimizer, check_takes_one, made_optimizer
from minidl.parallel.group import in_words
from minidl.parallel.layout import Apart, Reduction
from minidl.parallel.losses import loss_of_output
from minidl.parallel.mesh import REPLICAS, Mesh
from minidl.parallel.normalization import SyncBatchNorm
from minidl.parallel.parameter_profile import Updates, reduction_of
from minidl.parallel.remembered import Remembered
from minidl.parallel.signature import signature
from minidl.storage import placement

KNOWN = Remembered(1024)  # a chain has few kinds of blocks, and a search tries some hundred plans of it
LAYER_AXES = ("tensor", "context", "expert")  # along which builders may split layers
Value = TypeVar("Value")


@dataclass(frozen=True)
class ChainProfile:
    """The profiles of a chain's blocks, in order, of its loss, and the shape of its input. loss_name: its class.

    first_trained: the first block to which the gradient goes back. Those before it have nothing to train, or a block
    after them gives no gradient of its input; nobody wants the gradient of what the first trained one takes. ties: the
    parameters that several blocks hold, which the profiles of these blocks all count.
    """

    blocks: tuple[BlockProfile, ...]
    first_trained: int
    loss: tuple[Call, ...]
    score: tuple[Call, ...]
    input: MetaArray
    target: MetaArray
    loss_name: str
    ties: tuple[Apart, ...]

    @cached_property
    def kinds(self) -> tuple[BlockProfile, ...]:
        """The distinct ones of the blocks, in the order in which they come."""
        return tuple({id(block): block for block in self.blocks}.values())

    def each(self, function: Callable[[BlockProfile], Value]) -> list[Value]:
        """`function` of each block, which is asked once for those that are alike."""
        found = {id(block): function(block) for block in self.kinds}
        return [found[id(block)] for block in self.blocks]

    @property
    def optimizer(self) -> str:
        """The name of the optimizer, "none" where there is nothing to update."""
        return next((block.optimizer for block in self.kinds if block.optimizer), "none")

    @cached_property
    def norms(self) -> bool:
        """Whether the optimizer's update takes norms of whole parameters."""
        return any(p.squares for block in self.kinds for p in block.parameters)

    @cached_property
    def whole(self) -> bool:
        """Whether the optimizer's update takes whole parameters."""
        return any(p.whole for block in self.kinds for p in block.parameters)

    @cached_property
    def statistics(self) -> bool:
        """Whether the model has running statistics."""
        return any(block.statistics_bytes for block in self.kinds)

    @property
    def tuples(self) -> list[tuple[bool, ...]]:
        """Of what each block takes: for a tuple, whether each array is of floats; empty for a single array."""
        taken = [self.input, *(block.output for block in self.blocks)]
        return [tuple(a.dtype.kind == "f" for a in x) if isinstance(x, tuple) else () for x in taken]

    @cached_property
    def reductions(self) -> list[dict[int, Reduction]]:
        """Of each block, by their places, how those trained parameters are reduced that are not reduced as usual.

        Without those that several blocks hold.
        """
        found = [block.reductions if number >= self.first_trained else {} for number, block in enumerate(self.blocks)]
        for number, places in self._tied.items():
            found[number] = {place: one for place, one in found[number].items() if place not in places}
        return found

    @property
    def parameter_bytes(self) -> list[int]:
        """Of each block, without what is not reduced as usual, or is held by several."""
        found = []
        for number, (block, apart) in enumerate(zip(self.blocks, self.reductions, strict=True)):
            places = {*apart, *self._tied.get(number, ())}
            found.append(block.parameter_bytes - sum(block.parameters[place].nbytes for place in places))
        return found

    @cached_property
    def _tied(self) -> dict[int, set[int]]:
        """The places of those parameters of blocks that several hold."""
        found: dict[int, set[int]] = {}
        for block, place in (holder for tie in self.ties for holder in tie.holders):
            found.setdefault(block, set()).add(place)
        return found


def chain_of(model: Module) -> list[Module]:
    """The blocks of `model`: those of a Sequential, or the model itself as the only one."""
    return model.blocks if isinstance(model, Sequential) else [model]


def loss_of(model: Module) -> Loss:
    """The loss that the model carries, or cross-entropy."""
    return getattr(model, "loss", CrossEntropyLoss)()


def build_on_meta(build: Callable[[Mesh], Module], mesh: Mesh, dtype="float32", whole: bool = True) -> Module:
    """The model that `build` makes for `mesh`, with parameters of `dtype` that have shapes and no values.

    whole: with all its blocks; if not, one of each may stand for those that are `repeated`, to be priced.
    """
    check_builder(build)
    check_takes_one("the builder", build, "the mesh")
    with device("meta"):
        model = build(mesh) if whole else _with_one_of_each(build, mesh)
    if not isinstance(model, Module):
        raise TypeError(f"the builder returned a {type(model).__name__}, not a minidl.nn.Module")
    for name, parameter in model.named_parameters():
        parameter.name, parameter.data = name, MetaArray(parameter.shape, dtype)
    for buffer in model.buffers():
        if buffer.dtype.kind == "f":
            buffer.data = MetaArray(buffer.shape, dtype)
    for axis in LAYER_AXES:
        if mesh.size(axis) > 1 and not mesh.has_group(axis):
            raise ValueError(f"{axis}={mesh.size(axis)}, but the builder splits no layer over mesh.group({axis!r})")
    for module in model.modules():
        if isinstance(module, SyncBatchNorm) and module.group is not None:
            for axis in REPLICAS:
                if mesh.size(axis) > 1 and axis not in module.group.axes:
                    raise ValueError(f"SyncBatchNorm needs a group over {axis} too: its ranks have parts of the batch")
    return model


def whole_on_meta(model: Module | None, build: Callable[[Mesh], Module], mesh: Mesh, dtype="float32") -> Module:
    """`model`, of which one block may stand for others, with all of them; built anew where there is none."""
    whole = model is not None and all(distinct(block) is block for block in chain_of(model))
    return model if whole else build_on_meta(build, mesh, dtype)


def _with_one_of_each(build: Callable[[Mesh], Module], mesh: Mesh) -> Module:
    try:
        with one_of_each():
            return build(mesh)
    except Touched:
        return build(mesh)


def ties_of(chain: Sequence[Module], first_trained: int) -> tuple[Apart, ...]:
    """The parameters that several blocks hold, each by itself, in the order of the first ones."""
    held: dict[int, tuple[Parameter, list[tuple[int, int]]]] = {}
    for block, module in enumerate(chain):
        for place, p in enumerate(module.parameters()):
            held.setdefault(id(p), (p, []))[1].append((block, place))
    return tuple(
        Apart(
            (tuple(holders),),
            tuple(block for block, _ in holders if p.requires_grad and block >= first_trained),
            reduction_of(p),
        )
        for p, holders in held.values()
        if len(holders) > 1
    )


@contextmanager
def _taking(x: Arrays, taker: object, giver: str) -> Iterator[None]:
    """TypeError, which says so, if `taker` fails because it is given a tuple and takes a tensor."""
    try:
        yield
    except AttributeError as error:
        if not isinstance(x, tuple) or "'tuple' object" not in str(error):
            raise
        raise TypeError(f"{type(taker).__name__} takes no tuple, as {giver} gives it") from error


def _check_samples(x: MetaArray, profiles: Sequence[BlockProfile]) -> None:
    """ValueError if ranks that share the samples of `x` have not as many each: on meta, all have as many as the first.

    The short batches that a training comes to may be shared unequally.
    """
    given = x
    for block in profiles:
        given, taken = several(block.output)[0], given
        gather = block.last_gather
        if gather and x.shape[0] % gather.size and given.shape[0] == taken.shape[0] * gather.size:
            ranks = in_words(gather.axes, gather.size)
            raise ValueError(f"a micro-batch of {x.shape[0]} samples is not divisible by {ranks}, which share it")


def profile_chain(
    model: Module, x: MetaArray, target: MetaArray, loss, optimizer: Callable, kernels: Hashable = None
) -> ChainProfile:
    """Run the chain, whose parameters are on meta, on one micro-batch `x` with labels `target`.

    optimizer: a function of parameters that returns an Optimizer. Identical blocks are run once: those that have been
    run for another chain on the same `kernels`, None for some that nobody knows, not at all.
    """
    return _Profiler(model, optimizer, kernels).chain(x, target, loss)


class _Profiler:
    def __init__(self, model: Module, optimizer: Callable, kernels: Hashable):
        self.held_by = chain_of(model)
        self.blocks = [distinct(block) for block in self.held_by]
        self.optimizer, self.kernels, self.device = optimizer, kernels, kernels and kernels[0]
        self.signatures = {block: signature(block) for block in dict.fromkeys(self.blocks)}
        kinds: dict[Hashable, int] = {}
        self.kind = {block: kinds.setdefault(found, len(kinds)) for block, found in self.signatures.items()}
        self.parameters = {block: list(block.parameters()) for block in self.signatures}
        check_optimizer(optimizer)
        self.known: dict[Hashable, BlockProfile] = {}  # in this chain
        KNOWN.check()

    def chain(self, x: MetaArray, target: MetaArray, loss: Loss) -> ChainProfile:
        trains = {block: any(p.requires_grad for p in held) for block, held in self.parameters.items()}
        trainable = [k for k, block in enumerate(self.blocks) if trains[block]]
        first_trained = min(trainable, default=len(self.blocks))
        profiles = self.run(x, first_trained)
        cuts = [k for k, block in enumerate(profiles) if k > first_trained and not block.gives_gradient]
        if cuts:
            first_trained = min((k for k in trainable if k >= cuts[-1]), default=len(self.blocks))
            profiles = self.run(x, first_trained)
        _check_samples(x, profiles)
        array = profiles[-1].output if profiles else x
        loss_name, loss = type(loss).__name__, loss_of_output(loss, self.held_by)
        loss_calls, score_calls = self.loss(loss, array, target)
        return ChainProfile(
            tuple(profiles), first_trained, loss_calls, score_calls, x, target, loss_name,
            ties_of(self.held_by, first_trained),
        )  # fmt: skip

    def run(self, x: MetaArray, first_trained: int) -> list[BlockProfile]:
        profiles, array = [], x
        same: dict[Hashable, BlockProfile] = {}  # by the array that a block takes, of which others are alike
        for k, block in enumerate(self.blocks):
            taken = self.kind[block], id(array), k > first_trained, k >= first_trained
            if taken not in same:
                key = taken[0], each(placement, array), *taken[2:]
                if key not in self.known:
                    with _taking(array, block, "the block before"):
                        self.known[key] = self.block(block, array, *key[1:])
                same[taken] = self.known[key]
            profiles.append(same[taken])
            array = profiles[-1].output
        return profiles

    def block(self, block: Module, x: Arrays, placed: Hashable, wants_grad: bool, trained: bool) -> BlockProfile:
        found = self.signatures[block]
        run = partial(profile_block, block, x, wants_grad, trained, self.device)
        key, lasting = (found, placed, wants_grad, trained), found.lasting
        found = self.look_up(key, lasting, run)
        if not (found.parameters and trained):
            return found
        parameters = self.parameters[block]
        stepper = made_optimizer(self.optimizer, parameters)
        updates = Updates(stepper, parameters, found.parameters)
        return self.look_up(
            (key, updates.key),
            lasting and updates.key is not None,
            lambda: replace(found, parameters=updates.of(KNOWN), optimizer=type(stepper).__name__),
        )

    def loss(self, loss: Loss, output: Arrays, target: MetaArray) -> tuple[tuple[Call, ...], tuple[Call, ...]]:
        """The calls of the loss with its gradient, and of the score."""

        def run():
            with meta.record() as loss_calls, _taking(output, loss, "the last block"):
                blocks.loss_and_gradient(loss, output, target)
            with meta.record() as score_calls:
                blocks.score(loss, output, target)
            return tuple(loss_calls), tuple(score_calls)

        found = signature(loss)
        return self.look_up((found, each(placement, output), placement(target)), found.lasting, run)

    def look_up(self, key: Hashable, lasting: bool, make: Callable[[], Value]) -> Value:
        """What `make` gives, which it need not where another chain has."""
        return KNOWN.get((self.kernels, key), make) if lasting and self.kernels is not None else make()


def sequence_length(x) -> int | None:
    """Tokens of a sample in a batch `x` of arrays (batch, sequence) of integers; None where samples are no such."""
    return x.shape[1] if x.ndim == 2 and x.dtype.kind in "iu" else None
