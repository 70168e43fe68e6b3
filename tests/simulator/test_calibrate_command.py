"""`python -m simulator calibrate`: what it prints and writes, and how it refuses."""

import json
import sys
from dataclasses import asdict

import pytest

from simulator.__main__ import main
from simulator.calibrate import WAS_BUSY, cache_path
from tests.simulator.command import check_refused, help_text
from tests.simulator.hand_made import made_up_whole
from tests.terminals import printed_on

pytestmark = pytest.mark.usefixtures("calibrated")


def test_calibrate_says_what_it_found_and_where_it_is_kept(monkeypatch, tmp_path, capsys):
    whole = json.dumps(asdict(made_up_whole()))
    cache_path().write_text(whole)
    assert printed_on(monkeypatch, "closed pipe", main, ["calibrate", "--json", str(tmp_path / "unread.json")]) == 0
    assert main(["calibrate", "--json", str(tmp_path / "c.json")]) == 0
    assert (tmp_path / "unread.json").read_text() == (tmp_path / "c.json").read_text()
    printed = capsys.readouterr().out
    for piece in ("77 GFLOP/s", "all_reduce, 2 workers", "send", "to go on", "100 µs", "kept in"):
        assert piece in printed
    table = printed.splitlines()[:-1]
    assert len(table) > 12 and max(map(len, table)) <= 80
    assert json.loads((tmp_path / "c.json").read_text())["compute"] == json.loads(whole)["compute"]


def test_a_calibration_says_where_it_is_kept_and_whether_it_is_worth_much(monkeypatch, tmp_path, capsys):
    def measured(**changes):
        found = made_up_whole(**changes)
        monkeypatch.setattr(sys.modules["simulator.calibrate"], "measure", lambda progress, effort, device: found)
        assert main(["calibrate", "--refresh"]) == 0
        return capsys.readouterr()

    assert "kept in" in measured(oversubscription=1.25).out  # it replaces the one that was there
    printed, said = measured(quiet=False, oversubscription=1.5)
    assert "kept in" in printed and WAS_BUSY in said
    assert main("predict mlp-digits --batch-size 8".split()) == 0  # with it
    assert WAS_BUSY in capsys.readouterr().err
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path / "file"))
    printed, said = measured(oversubscription=1.75)
    assert "kept in" not in printed and "cannot be cached" in said


def test_help_names_every_option(capsys):
    said = help_text(capsys, "calibrate")
    assert "--refresh" in said and "--json" in said


def test_a_wrong_argument_is_one_line_and_exit_code_2(tmp_path, capsys):
    check_refused(capsys, f"calibrate --json {tmp_path}/no/c.json", "cannot write .*c.json: No such file")
    check_refused(capsys, "calibrate --bogus", "unrecognized arguments: --bogus")
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}
