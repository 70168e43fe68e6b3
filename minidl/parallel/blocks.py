"""Running a chain block by block: each block has a tape of its own, so that its gradients are ready when it is done.

The worker runs these functions on real arrays, the profile runs the same ones on meta arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from minidl.autograd import run_backward, tape
from minidl.kernels import BY_ARRAY
from minidl.nn.module import Module
from minidl.storage import Array, storages
from minidl.tensor import Op, Tensor, no_grad


class _Input(Tensor):
    """A block's input: hands its gradient on, and does not keep the data alive if no op of the block does."""

    __slots__ = ("device_kernels",)

    def __init__(self, data, requires_grad: bool):
        super().__init__(data, requires_grad)
        self.device_kernels = super().kernels

    def accumulate_grad(self, grad, owned: bool) -> None:
        self.grad = grad if self.grad is None else self.device_kernels.add(self.grad, grad)


class SavedBlock:
    """What a block's forward keeps for its backward. passes: the block gives its input itself."""

    __slots__ = ("input", "op", "passes")

    def __init__(self, input: _Input, out: Tensor):
        self.input, self.op, self.passes = input, out.op, out is input

    def backward(self, grad):
        """Add to the block's parameters their gradients; return the input's, None where it is not wanted."""
        if self.op is None:  # the block has nothing to differentiate
            return grad if self.passes and self.input.requires_grad else None
        op, self.op = self.op, None
        run_backward([(op, grad)])
        return self.input.grad

    def kept(self, others: Iterable[Tensor]) -> dict[int, int]:
        """storage id -> bytes of what the tape keeps, each storage once; not those of `others`, as parameters are."""
        outside = storages(t.data for t in others)
        found = storages(array for op in (tape(self.op) if self.op else ()) for array in _arrays_in(op))
        return {key: nbytes for key, nbytes in found.items() if key not in outside}


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
    """Run `block` on the array `x`. Returns the output array and the SavedBlock, None where it is not trained.

    wants_grad: whether a block before this one waits for the gradient of `x`. trained: whether a gradient comes back to
    the block. TypeError if it gives no tensor on the device of `x`.
    """
    if not trained:
        return infer(block, x), None
    entry = _Input(x, wants_grad)
    out = _checked(block, block(entry), entry)
    saved = SavedBlock(entry, out)
    entry.data = None
    return (x if out is entry else out.data), saved


def forward_through(chain: Iterable[tuple[int, Module]], x, first_trained: int):
    """Run blocks, given with their places in the chain, one after the other on the array `x`.

    first_trained: the first block of the chain to which the gradient goes back. Returns the output array and, in order,
    the SavedBlocks of those that are trained.
    """
    saved = []
    for place, block in chain:
        x, kept = forward(block, x, wants_grad=place > first_trained, trained=place >= first_trained)
        if kept is not None:
            saved.append(kept)
    return x, saved


def backward_through(saved: Sequence[SavedBlock], gradient):
    """Bring the gradient of the output back through blocks that `forward_through` ran; returns that of their input."""
    for block in reversed(saved):
        gradient = block.backward(gradient)
    return gradient


def infer(block: Module, x):
    """Run `block` on the array `x`, keeping nothing."""
    with no_grad():
        entry = Tensor(x)
        return _checked(block, block(entry), entry).data


def _checked(block: Module, out: object, entry: Tensor) -> Tensor:
    if not isinstance(out, Tensor) or type(out.data) is not type(entry.data):
        given = f"a tensor on {out.device}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise TypeError(f"{type(block).__name__} made {given} of a tensor on {entry.device}: it must be one on that")
    return out


def loss_and_gradient(loss, output, target):
    """The sum and the weight of the loss of arrays `output` and `target`, and the gradient of the sum: an array."""
    entry = Tensor(output, requires_grad=True)
    total, weight = loss.sum_and_weight(entry, Tensor(target))
    total.backward()
    return total.data, weight, entry.grad.data


def score(loss, output, target) -> tuple:
    """Of arrays `output` and `target`: the sum and the weight of the loss, how many answers are right, of how many."""
    with no_grad():
        inputs = Tensor(output), Tensor(target)
        return *loss.sum_and_weight(*inputs), *loss.right_answers(*inputs)
