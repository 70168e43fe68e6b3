"""Errors by table and stack, and constants fitted to rows."""

import pytest

from simulator.stacks.stack import tomllib
from simulator.validation.fit import declaration, fit
from simulator.validation.predicted import Predicted
from simulator.validation.scores import overall, scores
from tests.simulator.validation.published import row


def found(folder, unfitted, measured, constant=1.0, device="abacus", **changes):
    """A row as if it had been simulated."""
    reason = "so" if unfitted is None else None
    return Predicted(row(folder, step_seconds=measured, **changes), unfitted, constant, device, 1.0, reason)


def test_errors_are_of_rows_measured_and_simulated_and_coverage_of_all(tmp_path):
    rows = [
        found(tmp_path, 1.0, 2.0, 2.2, id="a"), found(tmp_path, 3.0, 4.0, id="b"), found(tmp_path, None, 4.0),
        found(tmp_path, 1.0, ""), found(tmp_path, 1.0, 1.0, table="other"),
    ]  # fmt: skip
    one, other = scores(rows, lambda row: row.table)
    assert (one.name, one.rows, one.simulated, one.coverage) == ("made-up", 4, 3, 0.75)
    assert (one.unfitted.mape, one.unfitted.bias, one.unfitted.median) == (0.375, -0.375, 0.375)
    assert (one.unfitted.worst, one.unfitted.worst_error) == ("a", -0.5)
    assert one.fitted.mape == pytest.approx((0.1 + 0.25) / 2) and one.fitted.bias == pytest.approx(-0.075)
    assert other.null is None and other.unfitted.mape == 0
    assert (overall(rows).rows, overall(rows).simulated) == (5, 4)
    assert scores([found(tmp_path, None, 1.0)], lambda row: row.stack)[0].fitted is None


def test_a_constant_is_the_median_ratio_of_a_stack_on_a_device_and_says_what_the_others_give(tmp_path):
    rows = [found(tmp_path, 1.0, ratio, table=table) for ratio, table in ((1.1, "a"), (1.2, "b"), (1.6, "a"))]
    rows += [found(tmp_path, 1.0, 3.0, device="other"), found(tmp_path, 1.0, ""), found(tmp_path, None, 9.0)]
    one, other = fit(rows)
    assert (one.value, one.rows, one.tables) == (1.2, 3, ("a", "b"))
    assert one.error == pytest.approx((0.3 / 1.1 + 0.15 / 1.2 + 0.45 / 1.6) / 3)
    assert (other.device, other.value, other.error) == ("other", 3.0, None)
    with pytest.raises(ValueError, match="nothing to fit"):
        fit([found(tmp_path, None, 1.0)])


def test_constants_are_written_as_the_table_that_is_read(tmp_path):
    table = tomllib.loads(declaration(fit([found(tmp_path, 2.0, 3.0), found(tmp_path, 2.0, 3.0)])))
    assert table == {"constant": [
        {"stack": "default", "device": "abacus", "value": 1.5, "tables": ["made-up"], "rows": 2, "error": 0.0}
    ]}  # fmt: skip
