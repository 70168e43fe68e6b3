"""Missing values: NaNs in tables (samples, columns)."""

import numpy as np


def drop_missing(x: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """The samples of x that hold no NaN, and those same samples of the other arrays, the labels say."""
    for other in others:
        if len(other) != len(x):
            raise ValueError(f"drop_missing: x has {len(x)} samples, another array {len(other)}")
    whole = ~np.isnan(x).any(axis=tuple(range(1, x.ndim)))  # (samples,)
    return x[whole], *(other[whole] for other in others)


class FillMissing:
    """Puts a value for each NaN: the "mean" or "median" of its column in given data, or always the number `by`.

    data: (samples, ...), floats: the training set, so that nothing is learnt from the test set.
    """

    random = False

    def __init__(self, data: np.ndarray, by: str | float = "mean"):
        if isinstance(by, str):
            if by not in ("mean", "median"):
                raise ValueError(f"FillMissing: by={by!r}, choose mean, median or a number")
            empty = np.argwhere(np.isnan(data).all(axis=0))
            if len(empty):
                raise ValueError(
                    f"FillMissing: column {', '.join(map(str, empty[0]))} has no value to take the {by} of"
                )
            self.values = {"mean": np.nanmean, "median": np.nanmedian}[by](data, axis=0)
        else:
            self.values = np.full(data.shape[1:], float(by))

    def __call__(self, x: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        return np.where(np.isnan(x), self.values, x).astype(x.dtype)
