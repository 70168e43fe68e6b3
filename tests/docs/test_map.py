"""docs/map.md against the tree: every file and every name is there, and no folder is left out."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("minidl", "simulator", "lessons")
PAGE = (ROOT / "docs" / "map.md").read_text()
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split(" | "))
    for line in re.sub(r"\| \|$", "|  |", PAGE, flags=re.MULTILINE).splitlines()
    if line.startswith("| ") and not line.startswith("| concept")
]
PLACE = re.compile(r"`([\w./]+)(?:: ([^`]+))?`")


@cache
def defined(path: Path) -> set[str]:
    """What a file defines: names, and Class.name."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_there_are_rows_enough_to_find_ones_way_and_no_concept_stands_twice():
    concepts = [concept for concept, *_ in ROWS]
    assert len(concepts) >= 60 and len(set(concepts)) == len(concepts)
    assert all(where for _, where, _ in ROWS)


@pytest.mark.parametrize(("concept", "where", "lesson"), ROWS, ids=[concept for concept, *_ in ROWS])
def test_what_a_row_names_is_where_it_says(concept, where, lesson):
    places = PLACE.findall(where)
    assert PLACE.sub("", where).strip(", ") == ""  # a row is places alone
    for path, names in places:
        assert (ROOT / path).exists(), path
        for name in names.split(", ") if names else ():
            assert name in defined(ROOT / path), f"{path} does not define {name}"
    for path, names in PLACE.findall(lesson):
        assert re.fullmatch(r"lessons/\d\d_\w+\.py", path) and not names and (ROOT / path).exists(), path


def test_every_folder_of_the_packages_is_in_a_row():
    named = {(ROOT / path) for _, where, _ in ROWS for path, _ in PLACE.findall(where)}
    named = {path if path.is_dir() else path.parent for path in named}
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert sorted(str(folder.relative_to(ROOT)) for folder in folders - named) == []


def test_every_lesson_is_in_a_row():
    told = {path for *_, lesson in ROWS for path, _ in PLACE.findall(lesson)}
    assert told == {f"lessons/{path.name}" for path in (ROOT / "lessons").glob("[0-9][0-9]_*.py")}
