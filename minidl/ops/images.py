"""What convolution and pooling of images (batch, channels, height, width) ask of their options."""


def two(value, name):
    """An int as a pair; a pair as it is."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2:
        raise ValueError(f"{name}={value!r}, it must be one int or two")
    return both


def check_size(name, x, kernel, stride, padding):
    for option, pair, least in (("kernel size", kernel, 1), ("stride", stride, 1), ("padding", padding, 0)):
        if min(pair) < least:
            raise ValueError(f"{name}: {option} {tuple(pair)}, each must be at least {least}")
    if x.ndim != 4:
        raise ValueError(f"{name} needs images (batch, channels, height, width), not shape {x.shape}")
    if any(n + 2 * p < k for n, k, p in zip(x.shape[2:], kernel, padding, strict=True)):
        raise ValueError(f"{name}: images of {x.shape[2:]}, padded by {padding}, are smaller than the kernel {kernel}")
