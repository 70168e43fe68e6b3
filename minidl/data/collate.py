"""How samples become a batch."""

from collections.abc import Sequence
from numbers import Number

import numpy as np

from minidl.tensor import Tensor
from minidl.tree import sequence_like


def default_collate(samples: Sequence):
    """A batch of samples that all have one form: arrays and tensors are stacked, numbers become an array.

    Tuples, lists and dicts of these are kept, with a batch in place of each part; strings become a list. Python floats
    become float32 as in `minidl.tensor`. Raises ValueError for samples whose shapes or lengths differ.
    """
    first = samples[0]
    if isinstance(first, dict):
        return {key: default_collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, (tuple, list)):
        if len({len(sample) for sample in samples}) > 1:
            raise ValueError(f"the samples of a batch have {', '.join(str(len(s)) for s in samples)} parts: {_REMEDY}")
        return sequence_like(first, [default_collate(part) for part in zip(*samples, strict=True)])
    if isinstance(first, (str, bytes)):
        return list(samples)
    if isinstance(first, (np.ndarray, Tensor)):
        shapes = list(dict.fromkeys(tuple(sample.shape) for sample in samples))
        if len(shapes) > 1:
            raise ValueError(f"the samples of a batch have shapes {', '.join(map(str, shapes))}: {_REMEDY}")
        return np.stack([np.asarray(sample) for sample in samples])
    if isinstance(first, (Number, np.generic)):
        return np.array(samples, np.float32 if isinstance(first, float) and not isinstance(first, np.generic) else None)
    raise TypeError(f"samples of type {type(first).__name__} make no batch: give the DataLoader a collate_fn")


_REMEDY = "give the DataLoader a collate_fn that makes them equal, by padding say"
