"""Where caches go, whatever the environment says."""

import pwd
from pathlib import Path

import pytest

from minidl.caches import cache_folder


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ({"MINIDL_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"MINIDL_CACHE": "a"}, "a"),
        ({"MINIDL_CACHE": "", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/minidl"),
        ({"XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/minidl"),
        ({"XDG_CACHE_HOME": "b", "HOME": "/c"}, "/c/.cache/minidl"),
        ({"HOME": "c"}, None),
        ({}, None),  # nor is the user among those whom the system knows
    ],
)
def test_the_folder_is_minidls_own_or_the_users_or_none(monkeypatch, given, folder):
    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("MINIDL_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == (folder and Path(folder))
