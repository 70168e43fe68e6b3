"""Stack: what a software stack makes of the calls of a profile, and how it is loaded from a TOML file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minidl.kernels.meta import KernelCall
from minidl.parallel.block_profile import Call
from minidl.parallel.plan import PRECISIONS
from simulator import schema

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
FILE = schema.table({"name": schema.text})
MOST_REWRITTEN = 4096  # sequences of calls that a stack keeps; those of a model are some ten


@dataclass(frozen=True)
class Stack:
    """How a framework runs a model: its rewrites of what a profile says.

    key: by which `load` knows it. name: what people call it.
    """

    key: str
    name: str
    _rewritten: dict[tuple[int, str], tuple[Sequence[Call], list[Call]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @staticmethod
    def names() -> list[str]:
        """Those that `load` knows."""
        return sorted(path.stem for path in FOLDER.glob("*.toml"))

    @classmethod
    def load(cls, name: str | Path) -> Stack:
        """A stack by its name, or from the TOML file at a path.

        ValueError for an unknown name, and for an entry that is missing, unknown or not what it must be.
        """
        path = FOLDER / f"{name}.toml"
        if not path.exists():
            path = Path(name)
        if not path.is_file():
            raise ValueError(f"no stack {str(name)!r}: neither a file nor one of {', '.join(cls.names())}")
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a TOML file: {error}") from None
        try:
            FILE("", table)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return cls(path.stem, table["name"])

    def pace(self, device: str) -> float:
        """By what every time of a step on this device is multiplied; 1 where no such constant was fitted."""
        return 1.0

    def rewrite(self, calls: Sequence[Call], precision: str) -> Sequence[Call]:
        """The calls as they are made in training in `precision`.

        Kernels of float32 have its dtype and bytes, all but updates: masters of parameters and the optimizer's state
        stay in float32. What was rewritten is kept, by the identity of the calls.
        """
        key = id(calls), precision
        if key not in self._rewritten:
            if len(self._rewritten) >= MOST_REWRITTEN:
                self._rewritten.clear()
            self._rewritten[key] = calls, lowered(calls, precision)
        return self._rewritten[key][1]


def lowered(calls: Sequence[Call], precision: str) -> Sequence[Call]:
    """The calls with numbers of `precision` in place of float32."""
    if precision == "float32":
        return calls
    scale = PRECISIONS[precision] / PRECISIONS["float32"]
    return [_lowered(call, precision, scale) for call in calls]


def _lowered(call: Call, precision: str, scale: float) -> Call:
    if not isinstance(call, KernelCall) or call.dtype != "float32" or call.kind == "update":
        return call
    return KernelCall(
        call.name, call.kind, call.shapes, precision, call.flops, call.bytes_read * scale, call.bytes_written * scale,
        call.options, call.algorithm, call.recomputed,
    )  # fmt: skip
