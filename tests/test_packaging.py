"""setup.cfg against the code: a plain `pip install` brings all that is needed, and nothing else."""

import ast
import importlib
import re
import sys
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("minidl", "simulator", "lessons")
OPTIONAL = {
    "IPython",
    "cuda",
    "jupytext",
    "mpi4py",
    "numba_cuda",
    "tensorboardX",
    "torch",
}  # used where they are there, or brought by an extra
OTHERS = {"tomllib", "llvmlite", "inputs"}  # Python's since 3.11, numba's, and beside the script that imports it

SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def imported() -> set[str]:
    """The top-level packages that the code imports and that neither Python nor this project brings."""
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found.update(alias.name.split(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - set(PACKAGES) - OTHERS


def modules_imported(path: Path) -> set[str]:
    """What a file imports, by full names: of `from a import b` both a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return found


def required() -> set[str]:
    lines = SETUP["options"]["install_requires"].split("\n")
    names = (line.split(";")[0].split("=")[0].rstrip("><~! ") for line in lines if line)
    return {name.replace("-", "_") for name in names}


def test_what_is_imported_is_required_and_what_is_required_is_imported():
    assert imported() - OPTIONAL == required()


def test_the_simulator_prices_what_calls_say_and_imports_no_kernel_of_the_cpu():
    for path in (ROOT / "simulator").rglob("*.py"):
        cpu = {name for name in modules_imported(path) if f"{name}.".startswith("minidl.kernels.cpu.")}
        assert not cpu, path


def test_every_file_of_the_packages_is_installed():
    patterns = {
        (Path(*package.split(".")) / pattern.strip()).as_posix()
        for package, values in SETUP["options.package_data"].items()
        for pattern in values.split(",")
    }
    files = [
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    ]
    assert len(files) > 3
    assert [file for file in files if not any(fnmatch(file, pattern) for pattern in patterns)] == []


@pytest.mark.parametrize("name", PACKAGES)
def test_a_console_script_is_called_by_its_name_in_usage_and_errors(name, monkeypatch, capsys):
    scripts = dict(line.split(" = ") for line in SETUP["options.entry_points"]["console_scripts"].strip().split("\n"))
    assert list(scripts) == list(PACKAGES)
    module, function = scripts[name].split(":")
    main = getattr(importlib.import_module(module), function)
    for called, usage in ((f"/somewhere/bin/{name}", name), (f"/somewhere/{name}/__main__.py", f"python -m {name}")):
        monkeypatch.setattr(sys, "argv", [called, "dance"])
        assert main() == 2
        assert capsys.readouterr().err.endswith(f" (see `{usage} --help`)\n")


def test_type_checkers_read_the_annotations_of_every_package():
    assert all((ROOT / package / "py.typed").exists() for package in PACKAGES)


def test_the_description_has_no_link_that_needs_more_than_the_package():
    assert "project_urls" not in SETUP["metadata"] and "url" not in SETUP["metadata"]
    assert not re.search(r"\]\(|https?:|<img", SETUP["metadata"]["long_description"])
