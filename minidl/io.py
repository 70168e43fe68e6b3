"""Saving and loading tensors by name, in the safetensors format: no code runs when a file is read."""

from os import PathLike

import numpy as np
from safetensors import numpy as safetensors

from minidl.tensor import Tensor


def save(state: dict, path: str | PathLike) -> None:
    """Write tensors or arrays by name, `model.state_dict()` say, to a .safetensors file."""
    arrays = {name: x.numpy() if isinstance(x, Tensor) else np.asarray(x) for name, x in state.items()}
    safetensors.save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, path)


def load(path: str | PathLike) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, by name, on the CPU."""
    return {name: Tensor(array) for name, array in safetensors.load_file(path).items()}
