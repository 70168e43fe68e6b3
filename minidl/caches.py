"""Where things that took long to compute are kept for later runs."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """$MINIDL_CACHE, else `minidl` in the user's folder of caches; None if there is no home for one.

    That folder is $XDG_CACHE_HOME, else ~/.cache. A variable that is empty counts as unset, as does an XDG_CACHE_HOME
    that is no absolute path. Source: XDG Base Directory Specification 0.8. Whether it can be written is not looked at.
    """
    if own := os.environ.get("MINIDL_CACHE"):
        return Path(own)
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):
        caches = os.path.expanduser("~/.cache")  # stays as it is where nobody knows a home
    return Path(caches, "minidl") if os.path.isabs(caches) else None
