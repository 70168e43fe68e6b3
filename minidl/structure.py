"""Nested state taken apart, into arrays by name and one JSON text of everything else, and put together again."""

import json
from collections.abc import Callable

import numpy as np

from minidl.tensor import Tensor

# A dtype of a file: its name in NumPy, and what a tensor of it becomes when it is loaded; None: nothing could hold it.
DTYPES = {
    "F64": ("float64", "float64"), "F32": ("float32", "float32"), "F16": ("float16", "float32"),
    "BOOL": ("bool", "bool"), "I64": ("int64", "int64"), "I32": ("int32", "int64"), "I16": ("int16", "int64"),
    "I8": ("int8", "int64"), "U64": ("uint64", None), "U32": ("uint32", "int64"), "U16": ("uint16", "int64"),
    "U8": ("uint8", "int64"),
}  # fmt: skip
SAVED = tuple(name for name, _ in DTYPES.values())
DEEPEST = 64  # levels: what goes deeper is a circle, or made to break who reads it
MOST_BITS = 4096  # of a whole number: Python refuses to write or read longer ones as text
MOST_CHARACTERS = 48_000_000  # of the text, which may double inside a header; safetensors takes 100 MB of one


def take_apart(state: dict) -> tuple[dict[str, np.ndarray], str | None]:
    """The arrays of `state` in row-major order, by name, and a text of all else; None where there is nothing else.

    state: dicts (keys: texts or whole numbers), lists and tuples of tensors, arrays, NumPy scalars, numbers, texts and
    None. The name of an array is its path in them. TypeError or ValueError names by its path what cannot be saved.
    """
    if not isinstance(state, dict):
        raise TypeError(f"the state cannot be saved: it is a {type(state).__name__}, and no dict")
    arrays: dict[str, np.ndarray] = {}
    if all(isinstance(name, str) and _is_array(value) for name, value in state.items()):
        for name, value in state.items():
            _add(arrays, value, (name,))
        return arrays, None
    text = json.dumps(_written(state, (), arrays), separators=(",", ":"))
    if len(text) > MOST_CHARACTERS:
        raise ValueError(
            f"the numbers and texts of the state take {len(text):,} characters beside its tensors, "
            f"there is room for {MOST_CHARACTERS:,}: put lists of numbers into tensors"
        )
    return arrays, text


def put_together(text: str, array: Callable[[str], np.ndarray], tensor: Callable[[str], Tensor]) -> dict:
    """What `take_apart` made `text` of. array, tensor: give one by its name. ValueError if it is no such text."""
    try:
        state = _read(json.loads(text), array, tensor, 0)
    except (RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(state, dict):
        raise ValueError("the state is no dict")
    return state


def _is_array(x) -> bool:
    return isinstance(x, Tensor) or hasattr(x, "__array__") and not isinstance(x, np.generic)


def _add(arrays: dict[str, np.ndarray], x, path: tuple) -> str:
    """Put the tensor or array `x` among the arrays; its name there."""
    name = _dotted(path)
    if isinstance(x, Tensor) and x.device == "meta":
        raise TypeError(f"{name} cannot be saved: it is on meta, and has no values")
    array = np.asarray(x.numpy() if isinstance(x, Tensor) else x, order="C")
    _check_dtype(array.dtype, name)
    while name in arrays:  # the paths ("a.b",) and ("a", "b") read alike
        name += "'"
    if name == "__metadata__" or name != name.encode(errors="replace").decode():  # half of a pair of UTF-16
        raise ValueError(f"a tensor cannot be saved under the name {name!r}")
    arrays[name] = array
    return name


def _check_dtype(dtype: np.dtype, name: str) -> None:
    if dtype.name not in SAVED:
        raise TypeError(f"{name} cannot be saved: it has dtype {dtype}, those that can are {', '.join(SAVED)}")


def _written(x, path: tuple, arrays: dict[str, np.ndarray]):
    """`x` as JSON has it; what JSON lacks is an object with one key that says what it is."""
    if len(path) > DEEPEST:
        raise ValueError(f"{_dotted(path[:3])}… cannot be saved: it goes deeper than {DEEPEST} levels, or in a circle")
    if _is_array(x):
        return {"tensor" if isinstance(x, Tensor) else "array": _add(arrays, x, path)}
    if isinstance(x, np.generic):
        _check_dtype(x.dtype, _dotted(path))
        return {"numpy": [x.dtype.name, _written(x.item(), path, arrays)]}
    if x is None or isinstance(x, bool | str):
        return x
    if isinstance(x, int) and x.bit_length() <= MOST_BITS:
        return int(x)
    if isinstance(x, float):
        return float(x) if np.isfinite(x) else {"float": repr(float(x))}
    if isinstance(x, list) or type(x) is tuple:
        parts = [_written(part, (*path, i), arrays) for i, part in enumerate(x)]
        return parts if isinstance(x, list) else {"tuple": parts}
    if isinstance(x, dict):
        for key in x:
            if not isinstance(key, str | int) or isinstance(key, bool):
                where = f"in {_dotted(path)}" if path else "of the state"
                raise TypeError(f"the key {key!r} {where} cannot be saved: it is no text and no whole number")
        parts = {key: _written(value, (*path, key), arrays) for key, value in x.items()}
        return {"dict": parts} if all(isinstance(key, str) for key in x) else {"items": list(parts.items())}
    kind = f"a whole number of {x.bit_length()} bits" if isinstance(x, int) else f"a {type(x).__name__}"
    raise TypeError(
        f"{_dotted(path)} cannot be saved: it is {kind}, and no tensor, array, number, text, None, list, tuple or dict"
    )


def _dotted(path: tuple) -> str:
    return ".".join(map(str, path))


def _read(node, array, tensor, depth: int):
    """The value that `_written` made `node` of."""
    if depth > DEEPEST:
        raise ValueError(f"the state goes deeper than {DEEPEST} levels")

    def read(part):
        return _read(part, array, tensor, depth + 1)

    match node:
        case None | bool() | int() | float() | str():
            return node
        case list():
            return [read(part) for part in node]
        case {"tensor": str(name)}:
            return tensor(name)
        case {"array": str(name)}:
            return array(name)
        case {"numpy": [str(dtype), value]} if dtype in SAVED and isinstance(number := read(value), bool | int | float):
            return np.dtype(dtype).type(number)
        case {"float": "inf" | "-inf" | "nan" as text}:
            return float(text)
        case {"tuple": list(parts)}:
            return tuple(read(part) for part in parts)
        case {"dict": dict(parts)}:
            return {key: read(value) for key, value in parts.items()}
        case {"items": list(pairs)}:
            return dict(_pair(pair, read) for pair in pairs)
    raise ValueError(f"the state has the part {str(node)[:40]}")


def _pair(pair, read: Callable) -> tuple:
    match pair:
        case [str() | int() as key, value]:
            return key, read(value)
    raise ValueError(f"the state has the part {str(pair)[:40]}")
