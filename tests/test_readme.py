"""README: all that it prints to be typed is run, as a script, in a REPL, in a notebook and at 80 columns."""

import codeop
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from simulator.calibrate import Calibration
from tests.simulator.hand_made import made_up_whole

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OURS = ("python -m minidl", "python -m simulator", "python -m lessons")
SLOW = re.compile(r"pip install|python -m (minidl bench|simulator compare)|methods --quick|--batch-size 1536")
PYTHON = Path(sys.executable).parent
END = "print('all of README has been run')"
CELLS = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in {cells!r}:
    shell.run_cell(cell, store_history=True).raise_error()
"""


def blocks(language: str, text: str = README) -> list[str]:
    return [content for found, content in FENCED.findall(text) if found == language]


OF_FILES = {block.split()[1]: block for block in blocks("python") if re.match(r"# \w+\.py$", block, re.MULTILINE)}
SECTIONS = [found for section in re.split(r"^## ", README, flags=re.MULTILINE) if (found := blocks("python", section))]


def commands() -> list[str]:
    """What README gives to type in a shell, in blocks and between backticks, without comments and line ends."""
    lines = [line for block in blocks("sh") for line in re.sub(r"\\\n *", "", block).splitlines()]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCED.sub("", README))]
    lines += [span for span in spans if any(re.match(rf"{module} \w", span) for module in OURS)]
    return list(dict.fromkeys(re.sub(r" +#.*", "", line) for line in lines))


def environment(*paths: Path, **variables: object) -> dict[str, str]:
    """Of a shell in which `python` is the one in the first of `paths`, 80 columns wide."""
    found = os.environ | {"COLUMNS": "80", "PATH": os.pathsep.join([*map(str, paths), os.environ["PATH"]])}
    found.pop("MINIDL_CUDA", None)
    return found | {name: str(value) for name, value in variables.items()}


def run(arguments: list[str], folder: Path, variables: dict[str, str], entered: str | None = None):
    done = subprocess.run(arguments, cwd=folder, env=variables, input=entered, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def fits(*texts: str) -> bool:
    """Whether no line is wider than 80 columns."""
    return [line for text in texts for line in text.splitlines() if len(line) > 80] == []


def files() -> set[Path]:
    """Of the checkout, but for what Python, Numba, Git and tools keep."""
    kept = {"__pycache__", "build"}
    inside = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
    return {path for path in inside if not any(p in kept or p.startswith(".") for p in path.parts)}


@pytest.fixture(scope="module")
def calibrated(real_calibration, tmp_path_factory) -> Path:
    """A folder for $MINIDL_CACHE, with a calibration of this machine."""
    return kept_in(tmp_path_factory.mktemp("cache"), real_calibration[0])


@pytest.fixture(scope="module")
def made_up(tmp_path_factory) -> Path:
    """A folder for $MINIDL_CACHE, with a calibration that nobody has measured; one that was is in test_calibrate.py."""
    return kept_in(tmp_path_factory.mktemp("cache"), made_up_whole())


def kept_in(folder: Path, calibration: Calibration) -> Path:
    (folder / "calibration.json").write_text(json.dumps(asdict(calibration)))
    return folder


def test_every_block_is_one_that_is_run_here_or_a_drawing():
    assert {language for language, _ in FENCED.findall(README)} == {"python", "sh", ""}
    assert README.count("```") == 2 * len(FENCED.findall(README))
    assert not [drawing for drawing in blocks("") if re.search(r"^\$|import |pip ", drawing, re.MULTILINE)]


# Python


@pytest.mark.parametrize(
    "place", ["script", *(pytest.param(place, marks=pytest.mark.slow) for place in ("REPL", "notebook"))]
)
def test_the_python_blocks_run_as_printed_in_a(place, tmp_path, nothing_is_left):
    variables = environment(PYTHONPATH=ROOT, IPYTHONDIR=tmp_path)
    cells = [block for section in SECTIONS for block in section]
    if place == "script":  # a section needs nothing of another
        for i, section in enumerate(SECTIONS):
            (tmp_path / f"{i}.py").write_text("\n".join(section))
            assert fits(run([sys.executable, f"{i}.py"], tmp_path, variables).stdout)
    elif place == "REPL":
        done = run([sys.executable, "-i"], tmp_path, variables, "\n".join([*cells, END, ""]))
        said = re.sub(r"^(>>> |\.\.\. )+", "", done.stderr, flags=re.MULTILINE)
        assert not re.search(r"^Traceback|^\w+Error:", said, re.MULTILINE), said
        assert done.stdout.splitlines()[-1] == eval(END[6:-1])
    else:
        pytest.importorskip("IPython", reason="a notebook cell needs IPython")
        run([sys.executable, "-c", CELLS.format(cells=cells)], tmp_path, variables)


def test_a_repl_takes_the_python_blocks_line_by_line():
    """As typed, without running them: it wants an empty line after a definition."""
    compiled, lines = codeop.CommandCompiler(), []
    for line in "\n".join(block for section in SECTIONS for block in section).splitlines():
        lines.append(line)
        if compiled("\n".join(lines)):  # else it waits for more; SyntaxError if that cannot help
            lines.clear()
    assert not lines


@pytest.mark.skipif(not find_spec("mypy"), reason="needs mypy, which the extra `dev` brings")
def test_type_checkers_find_nothing_wrong_with_the_python_blocks(tmp_path, request):
    for i, section in enumerate(SECTIONS):
        (tmp_path / f"section_{i}.py").write_text("\n".join(section))
    cache = request.config.cache.mkdir("mypy") if hasattr(request.config, "cache") else tmp_path
    check = [sys.executable, "-m", "mypy", "--check-untyped-defs", "--cache-dir", str(cache), "."]
    run(check, tmp_path, environment(PYTHONPATH=ROOT))


# Commands


@pytest.mark.parametrize(
    "command", [pytest.param(c, marks=pytest.mark.slow) if SLOW.search(c) else c for c in commands()]
)
def test_a_command_runs_as_printed(command, tmp_path, request):
    before = files()
    if command.startswith("pip install"):
        folder, variables = request.getfixturevalue("fresh")
    else:
        cache = request.getfixturevalue("calibrated" if "simulator compare" in command else "made_up")
        folder, variables = tmp_path, environment(PYTHON, PYTHONPATH=ROOT, MINIDL_CACHE=cache)
    marker = request.getfixturevalue("nothing_is_left")  # of the command: what fixtures have started goes on
    variables = variables | {"MINIDL_TEST_MARKER": marker}
    if "bench cuda" in command:
        variables |= {"MINIDL_CUDA": "emulated"}  # a GPU may not be here
    if "--vs torch" in command:
        pytest.importorskip("torch", reason="to compare with PyTorch, it must be installed")
    if command.startswith("mpiexec") and not (PYTHON / "mpiexec").exists():
        pytest.skip("needs mpich, which the extra `test` brings")
    for name, content in OF_FILES.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for part in command.split(" && "):
        done = run(["bash", "-c", part], folder, variables)
        if part.startswith(OURS):
            assert fits(done.stdout, done.stderr), done.stdout + done.stderr
    assert files() == before


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A copy of the checkout, and the variables of a shell with a new virtual environment in which nothing is kept."""
    folder, home = tmp_path_factory.mktemp("fresh"), tmp_path_factory.mktemp("home")
    checkout = folder / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "__pycache__", "build"))
    venv.create(folder / "venv", with_pip=True)
    variables = environment(folder / "venv" / "bin", MINIDL_CACHE=home, VIRTUAL_ENV=folder / "venv")
    return checkout, {name: value for name, value in variables.items() if name != "PYTHONPATH"}


@pytest.mark.slow
def test_an_installed_package_brings_a_command_for_each_package(fresh):
    folder, variables = fresh
    run(["pip", "install", "."], folder, variables)
    for name in ("minidl", "simulator", "lessons"):
        assert run([name, "--help"], folder.parent, variables).stdout.startswith(f"usage: {name} ")
