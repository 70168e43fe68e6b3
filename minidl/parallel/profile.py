"""What each block of a chain costs: one run on the meta device for each distinct block, shape and dtype.

The layout of a pipeline and the simulator read these profiles; nothing else knows what a model costs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Number

from minidl.kernels import meta
from minidl.kernels.meta import KernelCall, MetaArray
from minidl.nn.containers import Sequential
from minidl.nn.losses import CrossEntropyLoss, Loss
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.parallel import blocks
from minidl.parallel.arguments import check_builder, make_optimizer
from minidl.parallel.group import CollectiveCall
from minidl.parallel.mesh import Mesh
from minidl.storage import on_meta, placement
from minidl.tensor import Tensor, device

Call = KernelCall | CollectiveCall


@dataclass(frozen=True)
class ParameterProfile:
    """A parameter of a block: its elements and bytes, and what the optimizer makes of it. trained: it wants a gradient.

    measure: the calls that find the `squares`, so many sums of squares that the update takes. update: the calls of the
    update. state_bytes: what is kept of it. All empty where it is not trained.
    """

    elements: int
    nbytes: int
    trained: bool
    measure: tuple[Call, ...] = ()
    update: tuple[Call, ...] = ()
    state_bytes: int = 0
    squares: int = 0


@dataclass(frozen=True)
class BlockProfile:
    """The calls of one block for one micro-batch, in order, and what it holds.

    backward: when its gradients are the first of the step; accumulate: when they are added to earlier ones; empty where
    no gradient goes back to the block. infer: its forward in evaluation. gives_gradient: its backward gives the
    gradient of its input. saved: the storages kept from forward to backward, beside parameters and statistics, as
    (name, bytes): "input" and "output" are those of the block's input and output, which a neighbour may keep too, the
    others are numbered. output: lies in memory as the block's does. output_is_input: it is a view of the input's
    storage, which then goes by "input". statistics_bytes: of its running statistics. optimizer: its name, empty where
    there is nothing to update.
    """

    forward: tuple[Call, ...]
    backward: tuple[Call, ...]
    accumulate: tuple[Call, ...]
    infer: tuple[Call, ...]
    gives_gradient: bool
    saved: tuple[tuple[str, int], ...]
    output: MetaArray
    output_is_input: bool
    parameters: tuple[ParameterProfile, ...]
    statistics_bytes: int
    optimizer: str

    def cost(self, flops_per_byte: float) -> float:
        """Forward and backward in FLOPs, a byte moved counting as so many of them: for comparing blocks."""
        calls = (c for c in (*self.forward, *self.backward) if isinstance(c, KernelCall))
        return float(sum(c.flops + flops_per_byte * (c.bytes_read + c.bytes_written) for c in calls))

    @property
    def saved_bytes(self) -> int:
        return sum(nbytes for _, nbytes in self.saved)

    @property
    def parameter_bytes(self) -> int:
        return sum(p.nbytes for p in self.parameters)

    @property
    def parameter_count(self) -> int:
        return sum(p.elements for p in self.parameters)

    @property
    def update(self) -> tuple[Call, ...]:
        """The calls of the optimizer, all parameters in turn."""
        return tuple(call for p in self.parameters for call in (*p.measure, *p.update))


@dataclass(frozen=True)
class ChainProfile:
    """The profiles of a chain's blocks, in order, of its loss, and the shape of its input. loss_name: its class.

    first_trained: the first block to which the gradient goes back. Those before it have nothing to train, or a block
    after them gives no gradient of its input; nobody wants the gradient of what the first trained one takes.
    """

    blocks: tuple[BlockProfile, ...]
    first_trained: int
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
    def norms(self) -> bool:
        """Whether the optimizer's update takes norms of whole parameters."""
        return any(p.squares for block in self.blocks for p in block.parameters)

    @property
    def statistics(self) -> bool:
        """Whether the model has running statistics."""
        return any(block.statistics_bytes for block in self.blocks)

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
    if mesh.size("tensor") > 1 and all(parameter.cut.is_whole for parameter in model.parameters()):
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
    chain, known = chain_of(model), {}

    def run(first_trained: int) -> list[BlockProfile]:
        profiles, array = [], x
        for k, block in enumerate(chain):
            key = (signature(block), placement(array), k > first_trained, k >= first_trained)
            if key not in known:
                known[key] = profile_block(block, array, optimizer, wants_grad=key[-2], trained=key[-1])
            profiles.append(known[key])
            array = profiles[-1].output
        return profiles

    trainable = [k for k, block in enumerate(chain) if any(p.requires_grad for p in block.parameters())]
    first_trained = min(trainable, default=len(chain))
    profiles = run(first_trained)
    cuts = [k for k, block in enumerate(profiles) if k > first_trained and not block.gives_gradient]
    if cuts:
        first_trained = min((k for k in trainable if k >= cuts[-1]), default=len(chain))
        profiles = run(first_trained)
    array = profiles[-1].output if profiles else x
    with meta.record() as loss_calls:
        blocks.loss_and_gradient(loss, array, target)
    with meta.record() as score_calls:
        blocks.score(loss, array, target)
    return ChainProfile(
        tuple(profiles), first_trained, tuple(loss_calls), tuple(score_calls), x, target, type(loss).__name__
    )


def profile_block(block: Module, x: MetaArray, optimizer: Callable, wants_grad: bool, trained: bool) -> BlockProfile:
    """Run `block`, whose parameters are on meta, on `x`.

    wants_grad: whether a block before waits for its gradient. trained: whether a gradient comes back to it.
    """
    parameters = list(block.parameters())
    for parameter in parameters:
        parameter.grad, parameter.gradient_buffer = None, MetaArray(parameter.shape, parameter.dtype)
    kept, backward, accumulate, input_gradient = (), [], [], None
    with meta.record() as forward:
        y, saved = blocks.forward(block, x, wants_grad, trained)
    if saved is not None:
        kept = _named(saved.kept((*parameters, *block.buffers())), x, y)
        gradient = MetaArray(y.shape, y.dtype)
        with meta.record() as backward:
            input_gradient = saved.backward(gradient)
        _, saved = blocks.forward(block, x, wants_grad)
        with meta.record() as accumulate:
            saved.backward(gradient)
    with meta.record() as infer, _in_evaluation(block):
        blocks.infer(block, x)
    updates, optimizer_name = _updates(parameters, optimizer) if parameters and trained else ({}, "")
    held = tuple(updates.get(p) or ParameterProfile(p.numel(), p.data.nbytes, p.requires_grad) for p in parameters)
    for parameter in parameters:
        parameter.grad = parameter.gradient_buffer = None
    return BlockProfile(
        tuple(forward), tuple(backward), tuple(accumulate), tuple(infer), input_gradient is not None,
        kept, on_meta(y), y.storage is x.storage,
        held, sum(buffer.data.nbytes for buffer in block.buffers()), optimizer_name,
    )  # fmt: skip


@contextmanager
def _in_evaluation(block: Module) -> Iterator[None]:
    training = [module for module in block.modules() if module.training]
    block.train(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _named(kept: dict[int, int], x: MetaArray, y: MetaArray) -> tuple[tuple[str, int], ...]:
    """The storages `kept` by a block that made `y` of `x`, as BlockProfile.saved has them."""
    names = {id(y.storage): "output", id(x.storage): "input"}
    numbers = map(str, itertools.count())
    return tuple((names[key] if key in names else next(numbers), nbytes) for key, nbytes in kept.items())


def _updates(parameters: list[Parameter], optimizer: Callable) -> tuple[dict[Parameter, ParameterProfile], str]:
    """What the optimizer makes of each parameter that has a gradient, and the optimizer's name."""
    stepper = make_optimizer(optimizer, parameters)
    stepper.step()  # makes the state
    found, gradients = {}, {p: p.grad for p in parameters if p.grad is not None}
    for p in gradients:
        for other in gradients:
            other.grad = gradients[p] if other is p else None
        with meta.record() as measure:
            squares = stepper.measure()
        with meta.record() as update:
            stepper.step(squares=squares)
        kept = sum(value.nbytes for value in stepper.state[p].values() if not isinstance(value, Number))
        found[p] = ParameterProfile(
            p.numel(), p.data.nbytes, p.requires_grad, tuple(measure), tuple(update), kept, stepper.norms
        )
    return found, type(stepper).__name__


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
