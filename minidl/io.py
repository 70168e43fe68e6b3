"""Saving and loading tensors by name, in the safetensors format: no code runs when a file is read."""

from os import PathLike
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors

from minidl.files import replacing
from minidl.tensor import Tensor, float32, int64

SAVED = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
         "float16", "float32", "float64")  # fmt: skip
LOADED = {"F64": None, "F32": None, "I64": None, "BOOL": None, "F16": float32,
          "I32": int64, "I16": int64, "I8": int64, "U32": int64, "U16": int64, "U8": int64}  # fmt: skip


def save(state: dict, path: str | PathLike, metadata: dict[str, str] | None = None) -> None:
    """Write tensors or arrays by name, `model.state_dict()` say, to a .safetensors file in a folder that exists.

    metadata: texts by name to keep beside them. An older file is replaced when the new one is whole; OSError, and the
    older file is as it was, if it cannot be written. Two names of one tensor are saved as two.
    """
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise ValueError(f"cannot save {path}: there is no folder {folder}, make it first")
    arrays = {name: _saved(name, x) for name, x in state.items()}
    with replacing(path) as target:
        try:
            safetensors.save_file(arrays, target, metadata)
        except SafetensorError as error:
            raise OSError(f"cannot save {path}: {error}") from None


def _saved(name: str, x) -> np.ndarray:
    """`x` as an array in row-major order."""
    if not isinstance(name, str) or name == "__metadata__":
        raise ValueError(f"a tensor cannot be saved under the name {name!r}")
    if isinstance(x, dict | None):
        raise TypeError(f"{name} cannot be saved: it is a {type(x).__name__}, and no tensor or array")
    array = np.asarray(x.numpy() if isinstance(x, Tensor) else x, order="C")
    if array.dtype.name not in SAVED:
        raise TypeError(f"{name} cannot be saved: it has dtype {array.dtype}, those that can are {', '.join(SAVED)}")
    return array


def load(path: str | PathLike) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, by name, on the CPU.

    Half precision becomes float32, and integers become int64. ValueError if the file is of another format or has
    numbers that minidl has no dtype for.
    """
    with _opened(path) as file:
        return {name: _loaded(name, file) for name in file.keys()}  # noqa: SIM118  no dictionary


def load_metadata(path: str | PathLike) -> dict[str, str]:
    """The texts that were saved beside the tensors of a .safetensors file."""
    with _opened(path) as file:
        return file.metadata() or {}


def _opened(path: str | PathLike):
    try:
        return safe_open(path, "numpy")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole .safetensors file, as minidl.save writes it: {error}") from None


def _loaded(name: str, file) -> Tensor:
    dtype = file.get_slice(name).get_dtype()
    if dtype not in LOADED:
        raise ValueError(f"{name} has dtype {dtype}: convert it to one of {', '.join(LOADED)} where it comes from")
    array = file.get_tensor(name)
    return Tensor(array if LOADED[dtype] is None else array.astype(LOADED[dtype]))
