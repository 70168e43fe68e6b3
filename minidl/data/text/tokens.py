"""Tokens that a user gives, refused at the door in one sentence."""

import numpy as np


def row_of_tokens(name: str, tokens) -> np.ndarray:
    """`tokens` as an array. ValueError, which begins with `name`, unless it is one-dimensional and of integers."""
    array = np.asarray(tokens)
    if array.ndim != 1 or array.size and array.dtype.kind not in "iu":
        form = f"{array.dtype} {array.shape}"
        raise ValueError(f"{name}: tokens must be a row of integers, not {form}: encode a text first")
    return array


def known_tokens(name: str, tokens, vocabulary_size: int) -> list[int]:
    """A row of tokens as numbers. ValueError, too, if one is not in the vocabulary."""
    numbers = row_of_tokens(name, tokens).tolist()
    for token in numbers:
        if not 0 <= token < vocabulary_size:
            raise ValueError(
                f"{name}: token {token} is not among the {vocabulary_size} of the vocabulary, counted from 0"
            )
    return numbers
