"""`python -m simulator validate`: what it prints, writes, and how it refuses."""

import json

import pytest

from simulator.__main__ import main
from simulator.stacks.stack import tomllib
from tests.simulator.command import check_refused, help_text
from tests.simulator.validation.published import written


def validated(folder, capsys, *changes):
    """What --json writes of such rows, and what is printed."""
    path = folder / "validated.json"
    assert main(["validate", str(written(folder, *changes)), "--json", str(path)]) == 0
    return json.loads(path.read_text()), capsys.readouterr().out


def test_every_row_is_predicted_or_has_its_reason(tmp_path, capsys):
    document, printed = validated(
        tmp_path, capsys, {"id": "a"}, {"id": "b", "step_seconds": ""}, {"id": "c", "stack": "abacus", "table": "other"}
    )
    one, unmeasured, left_out = document["rows"]
    assert set(one) == {"id", "predicted_seconds", "predicted_seconds_unfitted", "measured_seconds", "reason"}
    assert one["predicted_seconds"] == one["predicted_seconds_unfitted"] > 0 and one["measured_seconds"] == 0.5
    assert unmeasured["predicted_seconds"] == one["predicted_seconds"] and unmeasured["measured_seconds"] is None
    assert left_out["predicted_seconds"] is None and "no stack 'abacus'" in left_out["reason"]
    assert [(table["name"], table["rows"], table["simulated"]) for table in document["tables"]] == [
        ("made-up", 2, 2), ("other", 1, 0)
    ]  # fmt: skip
    assert "c: no stack 'abacus'" in printed and max(map(len, printed.splitlines()[:12])) <= 80


def test_micro_batches_that_do_not_divide_the_batch_take_a_time_between(tmp_path, capsys):
    document, _ = validated(tmp_path, capsys, *({"id": str(n), "global_batch": n} for n in (16, 18, 20)))
    low, between, high = (row["predicted_seconds"] for row in document["rows"])
    assert low < between < high and between == pytest.approx((low + high) / 2)


def test_fit_writes_the_constants_and_nothing_else(tmp_path, capsys):
    path, steps = tmp_path / "constants.toml", str(written(tmp_path, {}, {"id": "b", "step_seconds": 0.7}))
    assert main(["validate", steps, "--fit", str(path)]) == 0
    (constant,) = tomllib.loads(path.read_text())["constant"]
    assert (constant["stack"], constant["tables"], constant["rows"]) == ("default", ["made-up"], 2)
    assert "".join(capsys.readouterr().out.split()) == str(path)  # a long one is broken into lines


def test_a_page_in_markdown_has_the_tables_and_what_was_left_out(tmp_path, capsys):
    path = tmp_path / "page.md"
    steps = str(written(tmp_path, {}, {"id": "b"}, {"id": "c", "stack": "abacus"}))
    assert main(["validate", steps, "--markdown", str(path)]) == 0
    page = path.read_text()
    assert "| made-up | 2/3 |" in page and "| abacus | 0/1 |" in page and "- c: no stack 'abacus'" in page
    assert str(path) in capsys.readouterr().out


def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path, capsys):
    check_refused(capsys, f"validate {tmp_path / 'steps.csv'} --fit a.toml --json b.json", "nothing else")
    check_refused(capsys, f"validate {tmp_path / 'none.csv'}", "none.csv: No such file")
    check_refused(capsys, f"validate {written(tmp_path, {'layers': 'x'})}", "row 1, column layers: 'x' is not")
    help = help_text(capsys, "validate")
    assert "step_seconds" in help and "reason" in help
