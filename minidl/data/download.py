"""Downloading a file of known content: whole and right, or not at all."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from minidl.files import replacing
from minidl.streams import Lasting

CHUNK = 1 << 20  # bytes
TIMEOUT_SECONDS = 30.0


def download_file(urls: Sequence[str], path: Path, sha256: str) -> None:
    """Write to `path` what the first of `urls` gives that has this SHA-256; show progress on a terminal.

    The file appears when it is complete and checked. Raises RuntimeError, with the reason of each url, if none works.
    """
    # Half a dozen modules of Python's, which `import minidl` should not have to wait for.
    from http.client import HTTPException

    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in urls:
        try:
            with replacing(path) as unfinished:
                _copy(url, unfinished, sha256)
            return
        except (OSError, HTTPException) as error:
            reasons.append(f"{url} ({error})")
    raise RuntimeError(f"cannot download {path.name}: {'; '.join(reasons)}; put the file into {path.parent} yourself")


def _copy(url: str, path: Path, sha256: str) -> None:
    """Copy what the url gives to the file; OSError if it has another SHA-256."""
    from urllib.request import urlopen

    digest = hashlib.sha256()
    screen = Lasting(sys.stderr)
    with urlopen(url, timeout=TIMEOUT_SECONDS) as response, open(path, "wb") as file:
        total, done = int(response.headers.get("Content-Length") or 0), 0
        while chunk := response.read(CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if screen.isatty():
                share = f"{done / total:4.0%} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
                print(f"\r{url}: {share}", end="", file=screen, flush=True)
    if screen.isatty():
        print(file=screen)
    if digest.hexdigest() != sha256:
        raise OSError(f"its SHA-256 is {digest.hexdigest()}, not {sha256}")
