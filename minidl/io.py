"""Saving and loading tensors by name, in the safetensors format: no code runs when a file is read."""

from os import PathLike
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from minidl.tensor import Tensor


def save(state: dict, path: str | PathLike) -> None:
    """Write tensors or arrays by name, `model.state_dict()` say, to a .safetensors file in a folder that exists."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise ValueError(f"cannot save {path}: there is no folder {folder}, make it first")
    arrays = {name: x.numpy() if isinstance(x, Tensor) else np.asarray(x) for name, x in state.items()}
    safetensors.save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, path)


def load(path: str | PathLike) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, by name, on the CPU; ValueError if the file is of another format."""
    try:
        arrays = safetensors.load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole .safetensors file, as minidl.save writes it: {error}") from None
    return {name: Tensor(array) for name, array in arrays.items()}
