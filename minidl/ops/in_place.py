"""Changing a tensor in place: refused where a gradient would come out wrong.

Nothing done in place is recorded on a tape. So neither the tensor nor the value may be on one while it is recorded; and
a tape that needs what was overwritten refuses to go backward (`autograd.changed`).
"""

from collections.abc import Callable

from minidl.grad_mode import is_grad_enabled, no_grad
from minidl.mutation import changed
from minidl.ops import arithmetic
from minidl.ops.indexing import index_keys
from minidl.ops.shape import cast, to
from minidl.tensor import Tensor


def _recorded(values) -> bool:
    return is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in values)


def _check(name: str, x: Tensor, values) -> None:
    if _recorded((x, *values)):
        which = "the tensor" if x.requires_grad else "the value"
        raise RuntimeError(
            f"{name} in place is not recorded on the tape, but {which} requires a gradient: make a new tensor (x + y, "
            "minidl.where, minidl.stack), or do it inside `with minidl.no_grad():`"
        )


def _write(name: str, x: Tensor, value, key: tuple = (...,)) -> Tensor:
    """x[key] = value, a tensor or a number."""
    if not isinstance(value, Tensor):
        value = Tensor(x.kernels.array(value, x.dtype))
    if value.device != x.device:
        raise ValueError(f"{name}: the value is on {value.device}, the tensor on {x.device}")
    if value.dtype.kind == "f" and x.dtype.kind != "f":
        raise RuntimeError(f"{name}: values of {value.dtype} do not fit in a tensor of {x.dtype}")
    try:
        x.kernels.index_assign(x.data, key, cast(value, x.dtype).data)
    except ValueError as error:
        raise ValueError(f"{name}: a value of shape {value.shape} does not fit in place: {error}") from None
    changed(x.data)
    return x


def in_place(name: str, function: Callable) -> Callable[..., Tensor]:
    """The method `name` that overwrites x with function(x, …) and gives x back."""

    def method(x: Tensor, *values, **options) -> Tensor:
        _check(name, x, (*values, *options.values()))
        with no_grad():
            result = function(x, *values, **options)
        if x.dtype.kind == "b" and result.dtype.kind != "b":
            raise RuntimeError(f"{name}: a result of {result.dtype} does not fit in a tensor of bools")
        return _write(name, x, result)

    method.__name__ = name
    method.__doc__ = f"{function.__doc__} In place: x becomes the result, and is given back."
    return method


def augmented(name: str, function: Callable) -> Callable[..., Tensor]:
    """The operator `x += y` and the like: in place, but a new tensor where a tape is recorded, unless x is a leaf."""
    write = in_place(name, function)

    def operator(x: Tensor, value) -> Tensor:
        if _recorded((x, value)) and not (x.requires_grad and x.is_leaf):
            return function(x, value)
        return write(x, value)

    return operator


def copy_(x: Tensor, source: Tensor) -> Tensor:
    """x becomes `source`, which broadcasts to its shape, is cast to its dtype and copied to its device."""
    if source.device != x.device and "meta" not in (source.device, x.device):
        source = to(source, x.device)
    _check("copy_", x, (source,))
    return _write("copy_", x, cast(source, x.dtype))


def fill_(x: Tensor, value: float) -> Tensor:
    """Every element of x becomes the number `value`."""
    _check("fill_", x, ())
    return _write("fill_", x, value)


def zero_(x: Tensor) -> Tensor:
    """Every element of x becomes 0."""
    return fill_(x, 0)


def setitem(x: Tensor, key, value) -> None:
    """x[key] = value, for the keys that x[key] takes; the value, a tensor or a number, broadcasts."""
    _check("x[...] = value", x, (value,))
    views, arrays = index_keys(x, key)
    if arrays is None:
        arrays = views if ... in views else (*views, ...)  # a place of one element takes any value of one element
    elif views is not None:
        x = Tensor(x.kernels.index(x.data, views))
    _write("x[...] = value", x, value, arrays)


for _name, _operator, _function in (
    ("add_", "__iadd__", arithmetic.add),
    ("sub_", "__isub__", arithmetic.subtract),
    ("mul_", "__imul__", arithmetic.multiply),
    ("div_", "__itruediv__", arithmetic.divide),
):
    setattr(Tensor, _name, in_place(_name, _function))
    setattr(Tensor, _operator, augmented(_name, _function))
Tensor.copy_, Tensor.fill_, Tensor.zero_, Tensor.__setitem__ = copy_, fill_, zero_, setitem
