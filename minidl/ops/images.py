"""What convolution and pooling share: the sizes in their options, and sequences taken as images of one row.

dims: 2 for images ([batch], channels, height, width), 1 for sequences ([batch], channels, length).
"""

from numbers import Integral

from minidl.ops.shape import reshape
from minidl.tensor import Tensor


def check_images(name: str, x: Tensor, dims: int) -> None:
    """ValueError unless x has the dimensions of images or sequences, with a batch or without."""
    if x.ndim not in (dims + 1, dims + 2):
        what, sizes = ("images", "height, width") if dims == 2 else ("sequences", "length")
        raise ValueError(f"{name} needs {what} ([batch], channels, {sizes}), not shape {x.shape}")


def sizes_of(name: str, option: str, value, dims: int, least: int = 1) -> tuple[int, ...]:
    """The `option` as an int for each of `dims` dimensions: those given, or the one given for all."""
    sizes = tuple(value) if isinstance(value, tuple | list) else (value,) * dims
    if len(sizes) != dims or not all(isinstance(n, Integral) and n >= least for n in sizes) or bool in map(type, sizes):
        wanted = "an int" if dims == 1 else "an int or two"
        raise ValueError(f"{name}: {option}={value!r}, it must be {wanted} of at least {least}")
    return sizes


def as_images(x: Tensor, dims: int) -> Tensor:
    """x as (batch, channels, height, width): without a batch dimension one image, a sequence an image of one row."""
    shape = x.shape if x.ndim == dims + 2 else (1, *x.shape)
    return reshape(x, shape if dims == 2 else (*shape[:2], 1, shape[2]))


def as_given(images: Tensor, x: Tensor, dims: int) -> Tensor:
    """Images back in the form of x, as it was before `as_images`."""
    shape = images.shape if dims == 2 else (*images.shape[:2], images.shape[3])
    return reshape(images, shape if x.ndim == dims + 2 else shape[1:])
