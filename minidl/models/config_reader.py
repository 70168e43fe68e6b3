"""Config: the keys of a Hugging Face `config.json`, each asked for by what it must be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import NoReturn

from minidl.json_files import read_json

REQUIRED = object()


class Config:
    """The keys and values of a config, or of an object within one. where: what messages call it.

    A key whose value is null counts as missing. ValueError, which names key and value, for what is not as it must be.
    """

    def __init__(self, config: str | os.PathLike | Mapping, where: str = "the config"):
        if not isinstance(config, Mapping):
            where, config = os.fspath(config), read_json(config)
        if not isinstance(config, Mapping):
            raise ValueError(f"{where} holds a {type(config).__name__}, and no object of keys and values")
        self.where, self._values = where, config

    def value(self, key: str) -> object:
        """As it is; None where it is missing."""
        return self._values.get(key)

    def size(self, key: str, default: int | None | object = REQUIRED) -> int:
        return self._read(key, default, lambda value: _is_whole(value) and value >= 1, "a whole number of at least 1")

    def whole(self, key: str, default: int) -> int:
        return self._read(key, default, lambda value: _is_whole(value) and value >= 0, "a whole number of at least 0")

    def number(self, key: str, default: float) -> float:
        def is_right(value):
            return isinstance(value, Real) and not isinstance(value, bool) and value >= 0

        return self._read(key, default, is_right, "a number that is not negative")

    def flag(self, key: str, default: bool) -> bool:
        return self._read(key, default, lambda value: isinstance(value, bool), "true or false")

    def list(self, key: str) -> list | None:
        return self._read(key, None, lambda value: isinstance(value, list), "a list")

    def part(self, key: str) -> Config | None:
        """An object within this one."""
        found = self._read(key, None, lambda value: isinstance(value, Mapping), "an object")
        return None if found is None else Config(found, f"{self.where}: {key}")

    def only(self, key: str, *allowed: object) -> None:
        """Refuse another value than those `allowed`."""
        self._read(key, allowed[0], lambda value: value in allowed, " or ".join(map(json.dumps, allowed)))

    def refuse(self, key: str, value: object, needed: str) -> NoReturn:
        raise ValueError(f"{self.where}: {key}={json.dumps(value, default=repr)} cannot be built: it must be {needed}")

    def _read(self, key: str, default, is_right: Callable[[object], bool], needed: str):
        value = self.value(key)
        if value is None:
            if default is REQUIRED:
                raise ValueError(f"{self.where} has no {key}")
            return default
        if not is_right(value):
            self.refuse(key, value, needed)
        return value


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
