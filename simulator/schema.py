"""Schemas of files: what a figure must be, and tables of them.

A schema is a function of (place, value) that raises ValueError, in one sentence, if the value at that place of a file
does not fit. Schemas of tables are made of those of their entries, so a whole file is checked by one call.
"""

import reprlib
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise

Schema = Callable[[str, object], None]


def number(needed: str, holds: Callable[[float], bool], whole: bool = False) -> Schema:
    """The numbers for which `holds`, which are `needed` in words; neither infinity nor NaN is one."""

    def check(place: str, value: object) -> None:
        is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not (is_number and abs(value) <= sys.float_info.max and holds(value)):
            raise ValueError(f"{place} = {_shown(value)} is not {needed}")

    return check


SHARE = number("a share above 0 and of at most 1", lambda x: 0 < x <= 1)
COUNT = number("a whole number of at least 1", lambda x: x >= 1, whole=True)
POSITIVE = number("a positive number", lambda x: x > 0)
NOT_NEGATIVE = number("a number of at least 0", lambda x: x >= 0)
# Limits of what there is, in the unit asked for: a value in another one is beyond them.
BANDWIDTH = number("a bandwidth in bytes/s, from 1e6 to 1e15", lambda x: 1e6 <= x <= 1e15)
FLOPS = number("a rate in FLOP/s, from 1e9 to 1e18", lambda x: 1e9 <= x <= 1e18)
GIGABYTES = number("a number of 10⁹ bytes, from 0.01 to 1e5", lambda x: 0.01 <= x <= 1e5)
MICROSECONDS = number("a time in µs, from 0 to 1e6", lambda x: 0 <= x <= 1e6)
FACTOR = number("a number of at least 1", lambda x: x >= 1)


def text(place: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{place} = {_shown(value)} is not a text")


def one_of(*known: str) -> Schema:
    """The texts among these."""

    def check(place: str, value: object) -> None:
        if value not in known:
            raise ValueError(f"{place} = {_shown(value)} is not one of {', '.join(known)}")

    return check


def boolean(place: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{place} = {_shown(value)} is not true or false")


def null(place: str, value: object) -> None:
    if value is not None:
        raise ValueError(f"{place} = {_shown(value)} is not null")


def anything(place: str, value: object) -> None:
    pass


def table(entries: dict[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    """Tables with these entries, and no others."""

    def check(place: str, value: object) -> None:
        _check_table(place, value)
        unknown = value.keys() - entries.keys()
        if unknown:
            name, known = min(unknown), ", ".join(entries)
            raise ValueError(f"{_named(place)} has an unknown {name!r}: it may have {known}")
        for name, schema in entries.items():
            if name in value:
                schema(_below(place, name), value[name])
            elif name not in optional:
                raise ValueError(f"{_named(place)} lacks {name!r}")

    return check


def table_of(schema: Schema, needed: tuple[str, ...] = ()) -> Schema:
    """Tables whose entries, whatever their names, fit one schema; those that are `needed` among them."""

    def check(place: str, value: object) -> None:
        _check_table(place, value)
        for name in needed:
            if name not in value:
                raise ValueError(f"{_named(place)} lacks {name!r}")
        for name, entry in value.items():
            schema(_below(place, name), entry)

    return check


def figure(schema: Schema) -> Schema:
    """Tables {value, source} whose value fits a schema; a file of one's own may leave the source out."""
    entry = table({"value": schema, "source": text}, optional=("source",))

    def check(place: str, value: object) -> None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f"{place} = {value} is not a table: write {{ value = {value} }}")
        entry(place, value)

    return check


def figures(**schemas: Schema) -> dict[str, Schema]:
    """Entries of a table, each a figure."""
    return {name: figure(schema) for name, schema in schemas.items()}


def values(table: Mapping) -> dict:
    """The figures of a table without their sources."""
    return {key: entry["value"] for key, entry in table.items() if isinstance(entry, dict) and "value" in entry}


def list_of(schema: Schema) -> Schema:
    """Lists of entries that fit one schema, at least one."""

    def check(place: str, value: object) -> None:
        if not isinstance(value, list) or not value:
            raise ValueError(f"{place} = {_shown(value)} is not a list with something in it")
        for i, entry in enumerate(value):
            schema(f"{place}[{i}]", entry)

    return check


def pair(first: Schema, second: Schema) -> Schema:
    """Lists of two, each with its schema."""

    def check(place: str, value: object) -> None:
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError(f"{place} = {_shown(value)} is not a pair")
        first(f"{place}[0]", value[0])
        second(f"{place}[1]", value[1])

    return check


def rising(schema: Schema) -> Schema:
    """Lists of entries that fit one schema, none of them below the one before it."""
    entries = list_of(schema)

    def check(place: str, value: object) -> None:
        entries(place, value)
        for i, (before, entry) in enumerate(pairwise(value), 1):
            if entry < before:
                raise ValueError(f"{place}[{i}] = {_shown(entry)} is below the entry before it")

    return check


def _check_table(place: str, value: object) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{_named(place)} = {_shown(value)} is not a table")


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _named(place: str) -> str:
    return place or "the file"


def _shown(value: object) -> str:
    """The value as it was given, shortened if it is long."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else reprlib.repr(value)
