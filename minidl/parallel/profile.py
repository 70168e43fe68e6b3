"""What each block of a chain costs: one run on the meta device for each distinct block, shape and dtype.

The layout of a pipeline and the simulator read these profiles; nothing else knows what a model costs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minidl.kernels import meta
from minidl.kernels.meta import KernelCall, MetaArray
from minidl.nn.containers import Sequential
from minidl.nn.losses import CrossEntropyLoss, Loss
from minidl.nn.module import Module
from minidl.parallel import blocks
from minidl.parallel.arguments import check_builder, make_optimizer
from minidl.parallel.group import CollectiveCall
from minidl.parallel.mesh import Mesh
from minidl.storage import on_meta, placement
from minidl.tensor import Tensor, device

Call = KernelCall | CollectiveCall

FLOPS_PER_BYTE = 20  # an AVX-512 core's 235 GFLOP/s over its 12 GB/s of memory; weighs the two against each other


@dataclass(frozen=True)
class BlockProfile:
    """The calls of one block for one micro-batch, in order, and what it holds.

    backward: when its gradients are the first of the step; accumulate: when they are added to earlier ones. measure:
    what finds the squares whose sums the optimizer takes; squares: how many there are.
    saved: the storages kept from forward to backward, beside parameters and buffers, as (name, bytes): "input" and
    "output" are those of the block's input and output, which a neighbour may keep too, the others are numbered.
    output_is_input: the output is a view of the input's storage, which then goes by "input". output: lies in memory as
    the block's does. update: the calls of the `optimizer`, which is its name, empty where there is nothing to update;
    state_bytes: what it keeps.
    """

    forward: tuple[Call, ...]
    backward: tuple[Call, ...]
    accumulate: tuple[Call, ...]
    measure: tuple[Call, ...]
    update: tuple[Call, ...]
    saved: tuple[tuple[str, int], ...]
    output_is_input: bool
    output: MetaArray
    parameter_bytes: int
    parameter_count: int
    state_bytes: int
    squares: int
    optimizer: str

    @property
    def saved_bytes(self) -> int:
        return sum(nbytes for _, nbytes in self.saved)

    @property
    def keeps_input(self) -> bool:
        return "input" in dict(self.saved)

    @property
    def keeps_output(self) -> bool:
        """Whether what is kept is, or has in it, the output."""
        return ("input" if self.output_is_input else "output") in dict(self.saved)

    @property
    def cost(self) -> float:
        """Forward and backward in FLOPs, a byte moved counting as FLOPS_PER_BYTE of them: for comparing blocks."""
        calls = (c for c in (*self.forward, *self.backward) if isinstance(c, KernelCall))
        return float(sum(c.flops + FLOPS_PER_BYTE * (c.bytes_read + c.bytes_written) for c in calls))


@dataclass(frozen=True)
class ChainProfile:
    """The profiles of a chain's blocks, in order, of its loss, and the shape of its input. loss_name: its class."""

    blocks: tuple[BlockProfile, ...]
    loss: tuple[Call, ...]
    score: tuple[Call, ...]
    input: MetaArray
    target: MetaArray
    loss_name: str

    @property
    def optimizer(self) -> str:
        """The name of the optimizer, "none" where there is nothing to update."""
        return next((block.optimizer for block in self.blocks if block.optimizer), "none")

    @property
    def costs(self) -> list[float]:
        return [block.cost for block in self.blocks]

    @property
    def norms(self) -> bool:
        """Whether the optimizer's update takes norms of whole parameters."""
        return any(block.squares for block in self.blocks)

    @property
    def parameter_bytes(self) -> list[int]:
        return [block.parameter_bytes for block in self.blocks]


def chain_of(model: Module) -> list[Module]:
    """The blocks of `model`: those of a Sequential, or the model itself as the only one."""
    return model.blocks if isinstance(model, Sequential) else [model]


def loss_of(model: Module) -> Loss:
    """The loss that the model carries, or cross-entropy."""
    return getattr(model, "loss", CrossEntropyLoss)()


def build_on_meta(build: Callable[[Mesh], Module], mesh: Mesh, dtype="float32") -> Module:
    """The model that `build` makes for `mesh`, with parameters of `dtype` that have shapes and no values."""
    check_builder(build)
    with device("meta"):
        model = build(mesh)
    if not isinstance(model, Module):
        raise TypeError(f"the builder returned a {type(model).__name__}, not a minidl.nn.Module")
    for name, parameter in model.named_parameters():
        parameter.name, parameter.data = name, MetaArray(parameter.shape, dtype)
    for buffer in model.buffers():
        if buffer.dtype.kind == "f":
            buffer.data = MetaArray(buffer.shape, dtype)
    if mesh.world_size > 1:
        _check_untied(model)
    if mesh.size("tensor") > 1 and all(parameter.shard is None for parameter in model.parameters()):
        raise ValueError(f"tensor={mesh.size('tensor')}, but the builder splits no layer over mesh.group('tensor')")
    return model


def _check_untied(model: Module) -> None:
    """ValueError if two blocks hold the same parameter: its gradient would be reduced with one of them alone."""
    holders: dict[int, int] = {}
    for i, block in enumerate(chain_of(model)):
        for name, parameter in block.named_parameters():
            if holders.setdefault(id(parameter), i) != i:
                first = holders[id(parameter)]
                raise ValueError(f"blocks {first} and {i} share the parameter {name}: only one worker can train that")


def profile_chain(model: Module, x: MetaArray, target: MetaArray, loss, optimizer: Callable) -> ChainProfile:
    """Run the chain, whose parameters are on meta, on one micro-batch `x` with labels `target`.

    optimizer: a function of parameters that returns an Optimizer. Identical blocks are run once.
    """
    known: dict[tuple, BlockProfile] = {}
    profiles, array, wants_grad = [], x, False  # nobody wants the gradient of the data
    for block in chain_of(model):
        key = (signature(block), placement(array), wants_grad)
        if key not in known:
            known[key] = profile_block(block, array, wants_grad, optimizer)
        profiles.append(known[key])
        array = known[key].output
        wants_grad = wants_grad or any(p.requires_grad for p in block.parameters())
    with meta.record() as loss_calls:
        blocks.loss_and_gradient(loss, array, target)
    with meta.record() as score_calls:
        loss.sum_and_weight(Tensor(array), Tensor(target))
    return ChainProfile(tuple(profiles), tuple(loss_calls), tuple(score_calls), x, target, type(loss).__name__)


def profile_block(block: Module, x: MetaArray, wants_grad: bool, optimizer: Callable) -> BlockProfile:
    """Run `block`, whose parameters are on meta, on `x`. wants_grad: whether a block before waits for its gradient."""
    parameters = list(block.parameters())
    for parameter in parameters:
        parameter.grad, parameter.gradient_buffer = None, MetaArray(parameter.shape, parameter.dtype)
    with meta.record() as forward:
        y, saved = blocks.forward(block, x, wants_grad)
    kept = _named(saved.kept((*parameters, *block.buffers())), x, y)
    gradient = MetaArray(y.shape, y.dtype)
    with meta.record() as backward:
        saved.backward(gradient)
    _, saved = blocks.forward(block, x, wants_grad)
    with meta.record() as accumulate:
        saved.backward(gradient)
    measure: list[Call] = []
    update: list[Call] = []
    state_bytes, squares, name = 0, 0, ""
    if parameters:
        stepper = make_optimizer(optimizer, parameters)
        stepper.step()  # makes the state
        with meta.record() as measure:
            found = stepper.measure()
        with meta.record() as update:
            stepper.step(squares=found)
        state_bytes, squares, name = stepper.state_bytes, found.size, type(stepper).__name__
    for parameter in parameters:
        parameter.grad = parameter.gradient_buffer = None
    return BlockProfile(
        tuple(forward), tuple(backward), tuple(accumulate), tuple(measure), tuple(update),
        kept, y.storage is x.storage, on_meta(y),
        sum(p.data.nbytes for p in parameters), sum(p.numel() for p in parameters), state_bytes, squares,
        name,
    )  # fmt: skip


def _named(kept: dict[int, int], x: MetaArray, y: MetaArray) -> tuple[tuple[str, int], ...]:
    """The storages `kept` by a block that made `y` of `x`, as BlockProfile.saved has them."""
    names = {id(y.storage): "output", id(x.storage): "input"}
    numbers = map(str, itertools.count())
    return tuple((names[key] if key in names else next(numbers), nbytes) for key, nbytes in kept.items())


def sequence_length(x) -> int | None:
    """Tokens of a sample in a batch `x` of arrays (batch, sequence) of integers; None where samples are no such."""
    return x.shape[1] if x.ndim == 2 and x.dtype.kind in "iu" else None


def signature(module: Module) -> tuple:
    """Equal for two modules only if they are built alike: types, options and parameter shapes, all the way down."""
    parts: list[object] = [type(module), module.training]
    for name, value in vars(module).items():
        if isinstance(value, Module):
            parts.append((name, signature(value)))
        elif isinstance(value, Tensor):
            parts.append((name, value.shape, value.dtype, value.requires_grad))
        elif isinstance(value, (int, float, str, bool, tuple, type(None))):
            parts.append((name, value))
        else:
            parts.append((name, id(value)))
    return tuple(parts)


def flops(calls: Sequence[Call]) -> int:
    return sum(c.flops for c in calls if isinstance(c, KernelCall))
