"""Broadcast: the ops of two operands, and of a number beside a tensor."""

from minidl import grad_mode
from minidl.kernels import BY_ARRAY
from minidl.mutation import tick
from minidl.op import Op
from minidl.ops.promotion import one_device, pair
from minidl.tensor import Tensor


class Broadcast(Op):
    """An elementwise op of two operands that broadcast; either may be a number.

    The smallest and most frequent ops, so what Op.__call__ does for any inputs is written out for two.
    """

    def __call__(self, a, b) -> Tensor:
        if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
            a, b = pair(self.name, a, b)
        x, y = a.data, b.data
        if x.dtype is not y.dtype or type(x) is not type(y):
            one_device(self.name, a, b)
            a, b = pair(self.name, a, b)
            x, y = a.data, b.data
        self.kernels = kernels = BY_ARRAY[type(x)]
        self.needs = parents = [a.node, b.node]
        try:
            data = self.forward(x, y)
        except ValueError:
            raise ValueError(f"{self.name}: shapes {x.shape} and {y.shape} do not broadcast") from None
        out = Tensor(data if data.shape else kernels.from_scalar(data))
        if grad_mode.enabled and any(parents):
            self.parents, self.order = parents, -tick()
            out.node = self
        return out

    @property
    def name(self) -> str:
        return type(self).__name__.lower()
