"""Rules for shapes that the kernels of every device share."""


def reduced(shape: tuple[int, ...], dim, keepdim: bool) -> tuple[int, ...]:
    """`shape` after a reduction over `dim`: an int, a tuple or None for all."""
    dims = range(len(shape)) if dim is None else (dim,) if isinstance(dim, int) else dim
    dims = {d % len(shape) for d in dims} if shape else set()
    if keepdim:
        return tuple(1 if d in dims else n for d, n in enumerate(shape))
    return tuple(n for d, n in enumerate(shape) if d not in dims)


def windows(size, kernel, stride, padding, dilation=(1, 1)) -> tuple[int, ...]:
    """How many windows of size `kernel` fit, `stride` apart, along each dimension of `size` padded at both ends.

    The elements of a window lie `dilation` apart.
    """
    options = zip(size, kernel, stride, padding, dilation, strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in options)
