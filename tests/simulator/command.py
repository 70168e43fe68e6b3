"""What the tests of all commands of `python -m simulator` ask of them."""

import re

import pytest

from simulator.__main__ import main


def help_text(capsys, *arguments: str) -> str:
    """What --help says, on one line."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def check_refused(capsys, line: str, match: str) -> None:
    """The command line gets one line on stderr, which says why, exit code 2, and nothing else."""
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith("simulator: ") and out == ""
    assert re.search(match, err)
