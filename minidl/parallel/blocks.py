"""Running a chain block by block: each block has a tape of its own, so that its gradients are ready when it is done.

The worker runs these functions on real arrays, the profile runs the same ones on meta arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from minidl.grad_mode import no_grad
from minidl.kernels import BY_ARRAY
from minidl.nn.module import Module
from minidl.op import Op
from minidl.split_backward import Left, backward_inputs, backward_weights
from minidl.storage import Array
from minidl.tape import Leaf, recorded_ops, run_backward
from minidl.tensor import Tensor


class _Input(Tensor):
    """A block's input: hands its gradient on, and does not keep the data alive if no op of the block does."""

    __slots__ = ("device_kernels", "like")

    def __init__(self, data, requires_grad: bool):
        super().__init__(data, requires_grad and data.dtype.kind == "f")
        self.device_kernels, self.like = super().kernels, (data.shape, data.dtype)

    def zeros(self):
        """The gradient where no op of the block has used it."""
        shape, dtype = self.like
        return self.device_kernels.full(shape, 0, dtype)

    def accumulate_grad(self, grad, owned: bool) -> None:
        self.grad = grad if self.grad is None else self.device_kernels.add(self.grad, grad)


def several(x) -> tuple:
    """The arrays between two blocks, of a flat tuple or the only one."""
    return x if isinstance(x, tuple) else (x,)


def each(function: Callable, x):
    """`function` of the array between two blocks, or the tuple of those of its arrays."""
    return tuple(map(function, x)) if isinstance(x, tuple) else function(x)


class SavedBlock:
    """What a block's forward keeps for its backward.

    inputs: of the block. roots: the nodes of its outputs, until they are used up. plain: it takes a tensor, no tuple.
    """

    __slots__ = ("inputs", "roots", "plain")

    def __init__(self, inputs: tuple[_Input, ...], outputs: tuple[Tensor, ...], plain: bool):
        self.inputs, self.roots, self.plain = inputs, [out.node for out in outputs], plain

    def backward(self, grad):
        """Add to the block's parameters their gradients; return the input's, None where it is not wanted.

        Gradients of a tuple are one, of arrays, with None for those of no floats.
        """
        run_backward(self._use_up(grad))
        return self._gradient()

    def backward_input(self, grad) -> tuple[object, LaterBlock]:
        """The input's gradient, None where it is not wanted, and what is left of the backward."""
        left = backward_inputs(self._use_up(grad), {entry.node for entry in self.inputs})
        return self._gradient(), LaterBlock(left)

    def _use_up(self, grad) -> list[tuple[Op | Leaf, object]]:
        roots, self.roots = self.roots, []
        return [(node, g) for node, g in zip(roots, several(grad), strict=True) if node is not None and g is not None]

    def _gradient(self):
        if self.plain:
            return self.inputs[0].grad
        if all(entry.grad is None for entry in self.inputs):
            return None
        return tuple(entry.zeros() if entry.grad is None and entry.node else entry.grad for entry in self.inputs)

    def arrays(self) -> Iterator[Array]:
        """Those that the tape keeps."""
        return chain.from_iterable(map(_arrays_in, recorded_ops([op for op in self.roots if isinstance(op, Op)])))


class LaterBlock:
    """What the first half of a block's backward leaves for the second."""

    __slots__ = ("left",)

    def __init__(self, left: Left):
        self.left = left

    def backward_weights(self) -> None:
        """Add to the block's parameters their gradients."""
        backward_weights(self.left)

    def arrays(self) -> Iterator[Array]:
        """Those that are kept for it."""
        for node, grad in self.left:
            yield grad
            if isinstance(node, Op):
                yield from _arrays_in(node)


def _arrays_in(op: Op) -> Iterator[Array]:
    """What `op` keeps for its backward: arrays, those of tensors, and those in tuples, lists and dicts."""
    for value in vars(op).values():
        if isinstance(value, dict):
            value = value.values()
        elif not isinstance(value, tuple | list):
            value = (value,)
        for item in value:
            array = item.data if isinstance(item, Tensor) else item
            if type(array) in BY_ARRAY:
                yield array


def forward(block: Module, x, wants_grad: bool, trained: bool = True):
    """Run `block` on the array `x`, or a tuple. Returns the output and the SavedBlock, None where it is not trained.

    wants_grad: whether a block before this one waits for the gradient of `x`. trained: whether a gradient comes back to
    the block. TypeError if it gives no tensor on the device of `x`, nor a tuple of such.
    """
    if not trained:
        return infer(block, x), None
    given = each(lambda array: _Input(array, wants_grad), x)
    inputs = several(given)
    out = _checked(block, block(given), inputs)
    saved = SavedBlock(inputs, several(out), plain=not isinstance(x, tuple))
    y = each(_data, out)
    for entry in inputs:
        entry.data = None
    return y, saved


def recompute(block: Module, x, wants_grad: bool, trained: bool = True):
    """`forward` once more: what it makes is the same, and running statistics stay as they are."""
    before = [(buffer, buffer.data, buffer.kernels.copy(buffer.data)) for buffer in block.buffers()]
    again = forward(block, x, wants_grad, trained)
    for buffer, array, values in before:  # written to, or replaced
        buffer.kernels.assign(array, values)
        buffer.data = array
    return again


def forward_through(blocks: Iterable[tuple[int, Module]], x, first_trained: float, forward=forward):
    """Run blocks, given with their places in the chain, one after the other on the array `x`.

    first_trained: the first block of the chain to which the gradient goes back, infinity for none. forward: or
    `recompute`. Returns the output array and, in order, the SavedBlocks of those that are trained.
    """
    saved = []
    for place, block in blocks:
        x, kept = forward(block, x, wants_grad=place > first_trained, trained=place >= first_trained)
        if kept is not None:
            saved.append(kept)
    return x, saved


def backward_through(saved: Sequence[SavedBlock], gradient):
    """Bring the gradient of the output back through blocks that `forward_through` ran; returns that of their input."""
    for block in reversed(saved):
        gradient = block.backward(gradient)
    return gradient


def backward_input_through(saved: Sequence[SavedBlock], gradient) -> tuple[object, list[LaterBlock]]:
    """The first half of `backward_through`: the gradient of the input, and what is left, in the order of backward."""
    left = []
    for block in reversed(saved):
        gradient, later = block.backward_input(gradient)
        left.append(later)
    return gradient, left


def recompute_attention(model: Module, recompute: bool) -> None:
    """Have the attention layers of `model`, whose classes say `recompute`, make their weights again, or keep them."""
    for layer in _attention_layers(model):
        layer.recompute = recompute


@contextmanager
def attention_recomputed(model: Module, recompute: bool) -> Iterator[None]:
    """`recompute_attention` for the `with` block."""
    before = [(layer, layer.recompute) for layer in _attention_layers(model)]
    recompute_attention(model, recompute)
    try:
        yield
    finally:
        for layer, was in before:
            layer.recompute = was


def recomputes_attention(model: Module) -> bool:
    return any(layer.recompute for layer in _attention_layers(model))


def _attention_layers(model: Module) -> Iterator[Module]:
    return (module for module in model.modules() if isinstance(getattr(type(module), "recompute", None), bool))


def infer(block: Module, x):
    """Run `block` on the array `x`, or a tuple, keeping nothing."""
    with no_grad():
        inputs = each(Tensor, x)
        return each(_data, _checked(block, block(inputs), several(inputs)))


def _data(tensor: Tensor):
    return tensor.data


def _checked(block: Module, out: object, inputs: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    for t in several(out):
        if not isinstance(t, Tensor) or type(t.data) is not type(inputs[0].data):
            given = f"a tensor on {t.device}" if isinstance(t, Tensor) else f"a {type(t).__name__}"
            among = " in a tuple" if isinstance(out, tuple) else ""
            raise TypeError(
                f"{type(block).__name__} made {given}{among} of a tensor on {inputs[0].device}: it must be one on that"
            )
    if not several(out):
        raise TypeError(f"{type(block).__name__} made an empty tuple: it must have a tensor at least")
    return out


def loss_and_gradient(loss, output, target):
    """The sum and the weight of the loss of an array or tuple `output` and of `target`; the gradient of the sum."""
    entries = each(lambda array: Tensor(array, requires_grad=array.dtype.kind == "f"), output)
    total, weight = loss.sum_and_weight(entries, Tensor(target))
    total.backward()
    return total.detach(), weight, each(lambda entry: None if entry.grad is None else entry.grad.data, entries)


def score(loss, output, target) -> tuple:
    """Of arrays `output` and `target`: the sum and the weight of the loss, how many answers are right, of how many."""
    with no_grad():
        inputs = each(Tensor, output), Tensor(target)
        return *loss.sum_and_weight(*inputs), *loss.right_answers(*inputs)
