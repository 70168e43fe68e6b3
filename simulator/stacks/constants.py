"""The constants that were fitted to measured steps: one for a software stack on a device."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path

from simulator import schema

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PATH = Path(__file__).parent / "constants.toml"
FILE = schema.table({
    "constant": schema.list_of(schema.table({
        "stack": schema.text, "device": schema.text, "value": schema.POSITIVE,
        "tables": schema.list_of(schema.text), "rows": schema.COUNT, "error": schema.NOT_NEGATIVE,
    }, optional=("error",))),
}, optional=("constant",))  # fmt: skip


def pace(stack: str, device: str) -> float:
    """By what every time of a step of `stack` on `device` is multiplied; 1 where no such constant was fitted."""
    return _constants().get((stack, device), 1.0)


@lru_cache
def _constants() -> dict[tuple[str, str], float]:
    if not PATH.exists():
        return {}
    table = tomllib.loads(PATH.read_text(encoding="utf-8"))
    FILE("", table)
    return {(one["stack"], one["device"]): one["value"] for one in table.get("constant", ())}
