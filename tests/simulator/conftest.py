"""No test of the simulator touches the user's calibration."""

import pytest


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """$MINIDL_CACHE, a folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MINIDL_CACHE", str(folder))
    return folder
