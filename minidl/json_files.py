"""How JSON is read that anyone may have written."""

import json
import os
from pathlib import Path


def read_json(path: str | os.PathLike) -> object:
    """What a JSON file holds. ValueError, which names it, if it is no JSON, no UTF-8 or nested too deeply; OSError."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None  # a failing disk names none
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file: {error}") from None
