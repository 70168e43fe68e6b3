"""Fetching a file of known content from the network: whole and right, or not at all."""

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

CHUNK = 1 << 20  # bytes
TIMEOUT_SECONDS = 30.0


def download(urls: Sequence[str], path: Path, sha256: str) -> None:
    """Write to `path` what the first of `urls` gives that has this SHA-256; show progress on a terminal.

    The file appears when it is complete and checked. Raises RuntimeError, with the reason of each url, if none works.
    """
    # Half a dozen modules of Python's, which `import minidl` should not have to wait for.
    from http.client import HTTPException

    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in urls:
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with open(unfinished, "wb") as file:
                found = _fetch(url, file)
            if found == sha256:
                os.replace(unfinished, path)
                return
            reasons.append(f"{url} (its SHA-256 is {found}, not {sha256})")
        except (OSError, HTTPException) as error:
            reasons.append(f"{url} ({error})")
        finally:
            unfinished.unlink(missing_ok=True)
    raise RuntimeError(f"cannot download {path.name}: {'; '.join(reasons)}; put the file into {path.parent} yourself")


def _fetch(url: str, file) -> str:
    """Copy what the url gives to the file; its SHA-256."""
    from urllib.request import urlopen

    digest = hashlib.sha256()
    with urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        total, done = int(response.headers.get("Content-Length") or 0), 0
        while chunk := response.read(CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if sys.stderr.isatty():
                share = f"{done / total:4.0%} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
                print(f"\r{url}: {share}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return digest.hexdigest()
