"""Windows of a long text, each with the same window one token later; and a text to try it on."""

from pathlib import Path

import numpy as np

from minidl.data.text.tokens import row_of_tokens


class TextDataset:
    """Sample i is (x, y): `sequence` tokens from token i * stride on, and those that follow each of them; both int64.

    tokens: one-dimensional, of integers; it may be a memory-mapped file. stride: how far the windows are apart; by
    default they do not overlap. Tokens at the end that fill no window are left out.
    """

    def __init__(self, tokens: np.ndarray, sequence: int, stride: int | None = None):
        self.tokens = row_of_tokens("TextDataset", tokens)
        self.sequence, self.stride = sequence, sequence if stride is None else stride
        if sequence < 1 or self.stride < 1:
            raise ValueError(f"TextDataset: sequence={sequence} and stride={self.stride}, both must be at least 1")
        if len(self.tokens) <= sequence:
            raise ValueError(
                f"TextDataset: sequence={sequence} needs {sequence + 1} tokens, there are {len(self.tokens)}"
            )

    def __len__(self) -> int:
        return (len(self.tokens) - 1 - self.sequence) // self.stride + 1

    def __getitem__(self, index: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = np.asarray(index)
        if ((index < -len(self)) | (index >= len(self))).any():
            raise IndexError(f"TextDataset: index {index} in {len(self)} windows")
        starts = np.where(index < 0, index + len(self), index) * self.stride
        window = self.tokens[starts[..., None] + np.arange(self.sequence + 1)].astype(np.int64)  # (..., sequence + 1)
        return window[..., :-1], window[..., 1:]


def coriolanus() -> str:
    """The beginning of Shakespeare's Coriolanus, 31,742 characters without stage directions; see data/README.md."""
    return Path(__file__).with_name("coriolanus.txt").read_text(encoding="ascii")
