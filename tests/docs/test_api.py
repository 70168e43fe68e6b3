"""The API reference: built from the docstrings without a warning, linked within itself, and needing no network."""

import importlib
import inspect
import os
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "build.py"
NAMES = {  # of each package some that must be there, with the first line of their docstrings
    "minidl": ["Tensor", "tensor", "matmul", "no_grad", "save", "capture", "Op"],
    "minidl.nn": ["Module", "Linear", "CrossEntropyLoss", "Sequential"],
    "minidl.optim": ["SGD", "AdamW", "Optimizer"],
    "minidl.data": ["DataLoader", "digits"],
    "minidl.models": ["builder", "gpt"],
    "minidl.parallel": ["Plan", "train", "launch", "check", "ProcessGroup", "Mesh", "Run"],
    "minidl.parallel.instructions": ["Forward", "SendActivation", "CustomInstruction"],
    "minidl.parallel.layers": ["ColumnParallelLinear"],
    "minidl.parallel.schedules": ["one_forward_one_backward", "Pass"],
    "minidl.trace": ["Trace"],
    "simulator": ["simulate", "Cluster", "calibrate", "Prediction"],
}


def build(*arguments, **variables):
    environment = os.environ | variables
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], env=environment, cwd="/", capture_output=True, text=True, timeout=300
    )


class Page(HTMLParser):
    """The links, the identifiers, the text and what else is fetched of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.ids, self.fetched, self.text = set(), set(), set(), ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        if tag == "a" and given.get("href"):
            self.links.add(given["href"])
        elif tag in ("script", "link", "img", "iframe"):
            self.fetched.add(given.get("src") or given.get("href"))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("pdoc", reason="the API reference is built by pdoc, which the extra `docs` brings")
    folder = tmp_path_factory.mktemp("api")
    run = build(str(folder))
    assert run.returncode == 0 and not run.stderr, run.stderr  # a warning of pdoc's would be there
    return {path.relative_to(folder).as_posix(): Page(path) for path in folder.rglob("*.html")}


@pytest.mark.parametrize("module", NAMES)
def test_the_page_of_a_module_has_its_names_with_their_docstrings(built, module):
    page = built[f"{module.replace('.', '/')}.html"]
    text = " ".join(page.text.split())
    for name in NAMES[module]:
        assert name in page.ids
        sentence = inspect.getdoc(getattr(importlib.import_module(module), name)).partition("\n")[0]
        assert " ".join(unescape(sentence).replace("`", "").split()) in text, name


def test_arguments_are_the_entries_of_a_list(built):
    text = built["minidl/parallel.html"].text
    for name in ("data", "bucket_mb", "batch_size", "save", "timeout"):
        assert re.search(rf"^{name}: ", text, re.MULTILINE), name


def test_every_link_leads_to_a_class_or_function_that_is_there(built):
    """What a class inherits from one that is not public is linked to as its own, and has no entry."""
    for name, page in built.items():
        for link in page.links:
            if link.startswith(("http", "#_")):
                continue
            path, _, place = link.partition("#")
            target = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
            assert target in built, f"{name}: {link}"
            assert not place or place.partition(".")[0] in built[target].ids, f"{name}: {link}"
    assert "parallel/schedules.html#Pass" in {link.removeprefix("../") for link in built["minidl/parallel.html"].links}


def test_nothing_is_fetched_from_elsewhere(built):
    assert not [f for page in built.values() for f in page.fetched if f and f.startswith(("http", "//"))]


def test_the_front_page_has_a_line_for_every_module(built):
    links = built["index.html"].links
    assert {f"{module.replace('.', '/')}.html" for module in NAMES} <= links
    assert {link for link in links if link.endswith(".html")} == built.keys() - {"index.html"}


def test_without_pdoc_one_line_says_what_to_install(tmp_path):
    (tmp_path / "pdoc.py").write_text("raise ImportError")
    run = build(str(tmp_path / "api"), PYTHONPATH=str(tmp_path))
    assert run.returncode == 2
    assert run.stderr == "docs/build.py: pdoc is not installed: pip install -e '.[docs]'\n"
    assert not (tmp_path / "api").exists()


def test_a_wrong_argument_is_one_line():
    run = build("--open")
    assert run.returncode == 2 and run.stderr == "usage: python docs/build.py [FOLDER]\n"
