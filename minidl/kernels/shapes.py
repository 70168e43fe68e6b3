"""Rules for shapes that the kernels of every device share."""


def reduced(shape: tuple[int, ...], dim, keepdim: bool) -> tuple[int, ...]:
    """`shape` after a reduction over `dim`: an int, a tuple or None for all."""
    dims = range(len(shape)) if dim is None else (dim,) if isinstance(dim, int) else dim
    dims = {d % len(shape) for d in dims} if shape else set()
    if keepdim:
        return tuple(1 if d in dims else n for d, n in enumerate(shape))
    return tuple(n for d, n in enumerate(shape) if d not in dims)


def windows(size, kernel, stride, padding) -> tuple[int, ...]:
    """How many windows of size `kernel` fit, `stride` apart, along each dimension of `size` padded at both ends."""
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
