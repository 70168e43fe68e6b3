"""No test of the simulator touches the user's calibration."""

import json
import warnings
from dataclasses import asdict

import pytest

from simulator.calibrate import cache_path
from tests.simulator.hand_made import made_up


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """$MINIDL_CACHE, a folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MINIDL_CACHE", str(folder))
    return folder


@pytest.fixture
def calibrated(cache_folder, monkeypatch):
    """A calibration in the cache, and a terminal of 80 columns, for a command; it may change how warnings are shown."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setenv("COLUMNS", "80")
    cache_folder.mkdir()
    cache_path().write_text(json.dumps(asdict(made_up())))
