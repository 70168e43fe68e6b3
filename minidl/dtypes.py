"""The dtypes of tensors, under the names that NumPy and PyTorch give them."""

import numpy as np

DTYPES = {name: np.dtype(name) for name in ("float32", "float64", "int64", "bool")}
float32, float64, int64, bool_ = DTYPES.values()
NATIVE = frozenset(DTYPES.values())  # found quicker than NumPy makes a name


def dtype_of(dtype) -> np.dtype:
    """The NumPy dtype meant by a name, a NumPy type or a Python type; ValueError for one that minidl does not have."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"{dtype!r} is no dtype: use {', '.join(DTYPES)}") from None
    if found not in NATIVE and found.name not in DTYPES:
        raise ValueError(f"dtype {found.name} is not supported: use {', '.join(DTYPES)}")
    return found
