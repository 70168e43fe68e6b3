"""How samples become a batch."""

from collections.abc import Sequence
from numbers import Number

import numpy as np

from minidl.creation import tensor
from minidl.dtypes import float32, float64
from minidl.nested import sequence_like
from minidl.tensor import Tensor

KINDS = (dict, (tuple, list), (str, bytes), (np.ndarray, Tensor), (Number, np.generic))


def default_collate(samples: Sequence):
    """A batch of samples that all have one form: arrays and tensors are stacked, numbers become an array.

    Tuples, lists and dicts of these are kept, with a batch in place of each part; strings become a list. The dtype is
    that of all samples together, whatever their order: of Python numbers as in `minidl.tensor`, where floats become
    float32; arrays, and NumPy's numbers, keep theirs. Raises ValueError for samples whose shapes, lengths or keys
    differ and for whole numbers beyond int64, TypeError for samples of several kinds.
    """
    first = samples[0]
    kind = next((kind for kind in KINDS if isinstance(first, kind)), None)
    if kind is None:
        raise TypeError(f"samples of type {type(first).__name__} make no batch: give the DataLoader a collate_fn")
    for sample in samples:
        if not isinstance(sample, kind):
            raise TypeError(
                f"the samples of a batch are of types {type(first).__name__} and {type(sample).__name__}: {_REMEDY}"
            )
    if kind is dict:
        _check_equal("keys", [tuple(sorted(map(str, sample))) for sample in samples])
        return {key: default_collate([sample[key] for sample in samples]) for key in first}
    if kind == (tuple, list):
        _check_equal("lengths", [len(sample) for sample in samples])
        return sequence_like(first, [default_collate(part) for part in zip(*samples, strict=True)])
    if kind == (str, bytes):
        return list(samples)
    if kind == (np.ndarray, Tensor):
        _check_equal("shapes", [tuple(sample.shape) for sample in samples])
        arrays = [np.asarray(sample) for sample in samples]
        return np.stack(arrays).astype(_common({array.dtype for array in arrays}), copy=False)
    dtypes = {sample.dtype for sample in samples if isinstance(sample, np.generic)}
    plain = [sample for sample in samples if not isinstance(sample, np.generic)]
    if plain:
        dtypes.add(tensor(plain, device="cpu").dtype)
    return np.array(samples, _common(dtypes))


def _common(dtypes: set[np.dtype]) -> np.dtype:
    """The dtype that holds all of these: of whole numbers and float32 it is float32, not float64 as for NumPy."""
    found = np.result_type(*dtypes)
    if found.kind == "f" and all(dtype.kind != "f" for dtype in dtypes):
        raise ValueError(f"no dtype holds the whole numbers of {', '.join(map(str, dtypes))}: {_REMEDY}")
    return float32 if found == float64 and float64 not in dtypes else found


def _check_equal(what: str, found: list) -> None:
    different = list(dict.fromkeys(found))
    if len(different) > 1:
        raise ValueError(f"the samples of a batch have {what} {', '.join(map(str, different))}: {_REMEDY}")


_REMEDY = "give the DataLoader a collate_fn that makes them equal, by padding say"
