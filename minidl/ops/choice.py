"""Choices between tensors, element by element: where, the larger and the smaller, clamp."""

from numbers import Real

from minidl.creation import tensor
from minidl.op import Op
from minidl.ops.promotion import floating, pair
from minidl.ops.shape import cast, unbroadcast
from minidl.tensor import Tensor


class Where(Op):
    """a where the condition is true, else b."""

    one_dtype = False

    def forward(self, condition, a, b):
        self.condition, self.shapes = condition, (a.shape, b.shape)
        return self.kernels.where(condition, a, b)

    def backward(self, grad):
        k, (a, b), condition = self.kernels, self.shapes, self.condition
        grad_a = unbroadcast(k, k.masked(grad, condition), a) if self.needs[1] else None
        return None, grad_a, unbroadcast(k, k.masked(grad, k.logical_not(condition)), b) if self.needs[2] else None


class Maximum(Op):
    """The larger of a and b, elementwise; where they are equal each gets half of the gradient."""

    kernel, loses, wins = "maximum", "less", "greater"

    def forward(self, a, b):
        self.a, self.b = a, b
        return getattr(self.kernels, self.kernel)(a, b)

    def backward(self, grad):
        k, a, b = self.kernels, self.a, self.b
        equal = k.cast(k.equal(a, b), grad.dtype)
        grad = k.multiply(grad, k.subtract(1, k.multiply(equal, 0.5)))
        a_loses, b_loses = getattr(k, self.loses)(a, b), getattr(k, self.wins)(a, b)  # NaN does not lose
        grad_a, grad_b = k.masked(grad, k.logical_not(a_loses)), k.masked(grad, k.logical_not(b_loses))
        return unbroadcast(k, grad_a, a.shape), unbroadcast(k, grad_b, b.shape)


class Minimum(Maximum):
    """The smaller of a and b, elementwise; where they are equal each gets half of the gradient."""

    kernel, loses, wins = "minimum", "greater", "less"


class Clamp(Op):
    """x, or the nearer of the numbers `low` and `high` where x lies outside; one may be None."""

    def __init__(self, low: float | None, high: float | None):
        self.low, self.high = low, high

    def forward(self, x):
        self.x = x
        return self.kernels.clamp(x, self.low, self.high)

    def backward(self, grad):
        k, x = self.kernels, self.x
        if self.low is not None:
            grad = k.masked(grad, k.greater_equal(x, self.low))
        return grad if self.high is None else k.masked(grad, k.less_equal(x, self.high))


class ClampMin(Op):
    """The larger of x and `low`, elementwise; where they are equal x has the gradient, where one is NaN neither."""

    kernel, inside, outside = "maximum", "greater_equal", "less"

    def forward(self, x, bound):
        self.x, self.bound = x, bound
        return getattr(self.kernels, self.kernel)(x, bound)

    def backward(self, grad):
        k, x, bound = self.kernels, self.x, self.bound
        grad_x = k.masked(grad, getattr(k, self.inside)(x, bound))
        grad_bound = k.masked(grad, getattr(k, self.outside)(x, bound))
        return unbroadcast(k, grad_x, x.shape), unbroadcast(k, grad_bound, bound.shape)


class ClampMax(ClampMin):
    """The smaller of x and `high`, elementwise; where they are equal x has the gradient, where one is NaN neither."""

    kernel, inside, outside = "minimum", "less_equal", "greater"


def where(condition: Tensor, a, b) -> Tensor:
    """a where the bool tensor `condition` is true, else b; all three broadcast, a and b may be numbers."""
    if not isinstance(condition, Tensor) or condition.dtype.kind != "b":
        raise TypeError("where needs a bool tensor as condition: compare, or convert with .to(minidl.bool_)")
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        a = tensor(a, device=condition.device)
    return Where()(condition, *pair("where", a, b))


def masked_fill(x: Tensor, mask: Tensor, value) -> Tensor:
    """x, but `value` (a number or a tensor without dimensions) where the bool tensor `mask` is true; they broadcast.

    The value takes the dtype of x.
    """
    if not isinstance(value, Tensor):
        value = tensor(value, device=x.device)
    if value.shape:
        raise ValueError(f"masked_fill needs one value, not a tensor of shape {value.shape}: see where")
    return where(mask, cast(value, x.dtype), x)


def maximum(a, b) -> Tensor:
    """The larger of a and b, elementwise with broadcasting; where they are equal each gets half of the gradient."""
    return Maximum()(*pair("maximum", a, b))


def minimum(a, b) -> Tensor:
    """The smaller of a and b, elementwise with broadcasting; where they are equal each gets half of the gradient."""
    return Minimum()(*pair("minimum", a, b))


def clamp(x: Tensor, min=None, max=None) -> Tensor:
    """x, but not below `min` and not above `max`: numbers, tensors or None; `max` where min > max.

    The gradient goes to the bound where x lies outside, to none where x is NaN. Integers become float32 beside a bound
    that is a float.
    """
    if min is None and max is None:
        raise ValueError("clamp needs min, max or both")
    if isinstance(min, float) or isinstance(max, float):
        x = floating(x)
    if isinstance(min, Real | None) and isinstance(max, Real | None):
        return Clamp(min, max)(x)
    if min is not None:
        x = ClampMin()(*pair("clamp", x, min))
    return x if max is None else ClampMax()(*pair("clamp", x, max))


def lerp(start: Tensor, end: Tensor, weight) -> Tensor:
    """start + weight (end - start), with broadcasting; weight is a number or a tensor."""
    return start + weight * (end - start)
