"""Every example runs as a script, from another folder, and shows what it is there to show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SHOWN = {  # what the output must have, in this order
    "data_parallel.py": [r"step 19: loss (\S+) with one worker, (\S+) with two", r"a step: .* with two"],
    "own_loop.py": [r"step 29: loss (\S+) with one worker, (\S+) with two", "two workers are equal: True"],
    "new_schedule.py": [
        "1f1b, 8 micro-batches: stages keep 4, 3, 2, 1 micro-batches",
        "eager, 8 micro-batches: stages keep 6, 5, 4, 1 micro-batches",
        "forgetful is refused: rank 0: .*never freed",
        r"loss after 20 steps: ([\d.]+); with one worker ([\d.]+)\n",
        r"four A100, pipeline 4, eager, 8 micro-batches: \d+ ms",
    ],
    "new_instruction.py": [
        "measured: 12 probes",
        "refused: rank 0: ProbeGradient.* comes before all samples are in it",
        r"ms a step, and 0\.\d*[1-9]\d* ms more with probes",
    ],
    "new_cluster.py": [
        r"does not fit +data 16, bfloat16\n", r"16 devices \(4 quad-GPU\), predicted", "model FLOPs utilisation",
    ],
}  # fmt: skip


def test_there_is_a_line_for_every_example():
    page = (EXAMPLES / "README.md").read_text()
    files = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".toml", ".csv")}
    assert {name for name in files if name.endswith(".py")} == SHOWN.keys()
    assert files == set(re.findall(r"\[`(\w+\.\w+)`\]\(\1\)", page))
    for path in re.findall(r"\]\((\.\./[^)#]+)", page):
        assert (EXAMPLES / path).exists(), path
    cells = (line.split("|")[3] for line in page.splitlines() if line.startswith("| ["))
    for path in re.findall(r"`(minidl/[^`]+)`", " ".join(cells)):
        assert (ROOT / path).exists(), path


def test_data_parallelism_takes_less_than_25_lines():
    assert len((EXAMPLES / "data_parallel.py").read_text().splitlines()) < 25


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_runs_from_anywhere_and_shows(name, tmp_path, nothing_is_left):
    variables = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    run = subprocess.run(
        [sys.executable, EXAMPLES / name], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    found = re.search(".*?".join(SHOWN[name]), run.stdout, re.DOTALL)
    assert found, run.stdout
    if found.groups():  # losses, with one worker and with two
        one, two = map(float, found.groups())
        assert one == pytest.approx(two, rel=1e-3)
    if name == "new_instruction.py":
        logged = re.findall(r"rank (\d), step (\d): the gradient of bucket (\d) has norm (\S+)", run.stderr)
        assert sorted(key for *key, _ in logged) == [[r, s, b] for r in "01" for s in "012" for b in "01"]
        assert {(s, b, norm) for r, s, b, norm in logged if r == "0"} == {
            (s, b, norm) for r, s, b, norm in logged if r == "1"
        }
    drawn = {"new_schedule.png", "new_schedule_measured.png"} if name == "new_schedule.py" else set()
    assert {path.name for path in tmp_path.iterdir()} == drawn
