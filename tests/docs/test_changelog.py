"""CHANGELOG.md: short, and the code that it names is there."""

import importlib
import re
from dataclasses import fields
from inspect import signature
from pathlib import Path

from minidl.parallel import Plan, train

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CHANGELOG.md").read_text()


def test_the_changelog_has_at_most_80_lines_and_begins_with_what_is_not_released():
    assert len(TEXT.splitlines()) <= 80
    assert re.findall(r"^## (.*)", TEXT, re.MULTILINE)[0] == "Unreleased"


def test_what_the_changelog_names_is_there():
    spans = set(re.findall(r"`([^`]+)`", TEXT))
    for name in (span for span in spans if re.fullmatch(r"minidl\.\w+", span)):
        assert hasattr(importlib.import_module("minidl"), name.removeprefix("minidl."))
    arguments = {span[:-1] for span in spans if re.fullmatch(r"\w+=", span)}
    assert arguments and arguments <= signature(train).parameters.keys()
    options = {option for span in spans for option in re.findall(r"(?:Plan\(|^)(\w+)=[\w\"]", span) if option.islower()}
    assert {"schedule", "sharding"} <= options <= {field.name for field in fields(Plan)}
    for path in (span for span in spans if re.fullmatch(r"[\w/]+(/|\.md)", span)):
        assert (ROOT / path).exists(), path
