"""Processes that predict: none of them stays behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from multiprocessing import active_children

import pytest

from simulator.validation.predicted import FEW, predict, predicted
from tests.simulator.validation.published import row

PARENT = """
import sys
from pathlib import Path
from simulator.validation.predicted import predicted
from tests.simulator.validation.published import row

if __name__ == "__main__":
    found = predicted([row(Path(sys.argv[1]))] * 1000, 2)
    next(found)
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_a_prediction_leaves_next_to_no_cycles_of_garbage(tmp_path):
    """So processes that predict row after row need not look for any."""
    predict(row(tmp_path))
    gc.collect()
    gc.disable()
    try:
        found = predict(
            row(tmp_path, pipeline=4, devices=16, layers=12, global_batch=96)
        )  # whose structure is not known yet
        assert found.reason is None
        assert gc.collect() < 100
    finally:
        gc.enable()


def test_rows_that_nobody_waits_for_are_given_up(tmp_path):
    before = set(active_children())
    found = predicted([row(tmp_path)] * 100 * FEW, 2)
    next(found)
    assert set(active_children()) > before
    found.close()
    assert set(active_children()) == before


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends them")
def test_processes_end_with_the_one_that_started_them(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}  # tests are not installed
    parent = subprocess.Popen(
        [sys.executable, script, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout.readline() == "begun\n"
    parent.kill()
    assert parent.communicate(timeout=30)[0] == ""  # all that have its output open have ended
    assert parent.returncode == -signal.SIGKILL
