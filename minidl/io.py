"""Saving and loading tensors by name, in the safetensors format: no code runs when a file is read."""

import os
import re
from collections.abc import Callable
from functools import cache
from os import PathLike

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors

from minidl.files import replacing
from minidl.kernels import for_array, for_device
from minidl.kernels.meta import MetaArray
from minidl.structure import DTYPES, put_together, take_apart
from minidl.tensor import Tensor

STRUCTURE = "minidl.state"  # the name of the text beside the tensors that says how a state is nested


def save(state: dict, path: str | PathLike, metadata: dict[str, str] | None = None) -> None:
    """Write tensors or arrays by name, `model.state_dict()` say, to a .safetensors file in a folder that exists.

    The state may be nested, as `{"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 7}` is:
    dicts, whose keys are texts or whole numbers, lists and tuples, with numbers, texts and None beside the tensors.
    Those go into the file's header as JSON; the tensors have their path as name ("optimizer.state.0.mean").

    metadata: texts by name to keep beside them. An older file is replaced when the new one is whole; OSError, and the
    older file is as it was, if it cannot be written. Two names of one tensor are saved as two. TypeError or ValueError,
    before anything is written, names by its path what cannot be saved.
    """
    if metadata and STRUCTURE in metadata:
        raise ValueError(f"the text {STRUCTURE!r} is what minidl.save writes itself: give yours another name")
    arrays, structure = take_apart(state)
    if structure is not None:
        metadata = {**(metadata or {}), STRUCTURE: structure}
    with replacing(path) as target:
        try:
            safetensors.save_file(arrays, target, metadata)
        except SafetensorError as error:
            if number := re.search(r"os error (\d+)", str(error)):  # Rust's errors
                raise OSError(int(number[1]), os.strerror(int(number[1])), os.fspath(path)) from None
            raise OSError(f"cannot save {path}: {error}") from None


def load(path: str | PathLike, device: str = "cpu") -> dict:
    """What was saved in a .safetensors file: tensors on `device`, on "meta" their shapes and dtypes alone.

    Of a file that another program wrote, or of a flat dict: the tensors by name. Half precision becomes float32, and
    integers become int64. In a nested state, arrays stay arrays, and everything is as it was to the last bit.
    ValueError if the file is of another format, or damaged, or has numbers that minidl has no dtype for.
    """
    for_device(device)
    with _opened(path) as file:
        structure = (file.metadata() or {}).get(STRUCTURE)
        # A nested state's header may name a tensor many times, which must take no more memory than the file.
        once = cache if structure is not None else _as_it_is

        @once
        def held(name: str) -> tuple[str, np.ndarray | MetaArray]:
            found = file.get_slice(name)
            dtype = found.get_dtype()
            if dtype not in DTYPES:
                raise _no_dtype(name, dtype)
            if device == "meta":
                return dtype, MetaArray(tuple(found.get_shape()), DTYPES[dtype][0])
            return dtype, file.get_tensor(name)

        @once
        def tensor(name: str) -> Tensor:
            dtype, found = held(name)
            _, wanted = DTYPES[dtype]
            if wanted is None:
                raise _no_dtype(name, dtype)
            loaded = Tensor(found if found.dtype == wanted else for_array(found).cast(found, np.dtype(wanted)))
            return loaded.to(device)

        try:
            if structure is None:
                return {name: tensor(name) for name in file.keys()}  # noqa: SIM118  no dictionary
            return put_together(structure, lambda name: held(name)[1], tensor)
        except (ValueError, SafetensorError) as error:
            wrong = "cannot be loaded" if structure is None else "has a damaged header"
            raise ValueError(f"{path} {wrong}: {error}") from None


def _as_it_is(function: Callable) -> Callable:
    return function


def _no_dtype(name: str, dtype: str) -> ValueError:
    wanted = ", ".join(dtype for dtype, (_, loaded) in DTYPES.items() if loaded)
    return ValueError(f"{name} has dtype {dtype}: convert it to one of {wanted} where it comes from")


def load_metadata(path: str | PathLike) -> dict[str, str]:
    """The texts that were saved beside the tensors of a .safetensors file."""
    with _opened(path) as file:
        return {name: text for name, text in (file.metadata() or {}).items() if name != STRUCTURE}


def _opened(path: str | PathLike):
    try:
        return safe_open(path, "numpy")
    except OSError as error:
        if os.fspath(path) in str(error):
            raise
        raise OSError(f"{path} cannot be read: {error}") from None
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole .safetensors file, as minidl.save writes it: {error}") from None
