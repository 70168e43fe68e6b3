"""The null model: FLOPs from columns alone, and one utilisation for all other rows."""

import pytest

from simulator.validation.null import flops, null_errors
from tests.simulator.validation.published import row


def test_flops_are_six_for_each_parameter_and_token_and_attention(tmp_path):
    found = row(tmp_path)
    parameters = 2 * (4 * 64**2 + 2 * 64 * 256) + 128 * 64
    tokens = 16 * 32
    assert flops(found) == 6 * parameters * tokens + 12 * 2 * 64 * 32 * tokens
    assert flops(row(tmp_path, recompute="full")) == pytest.approx(flops(found) * 4 / 3)
    assert flops(row(tmp_path, recompute="selective")) == flops(found)


def test_experts_gates_and_shared_keys_are_counted(tmp_path):
    dense = flops(row(tmp_path))
    feed_forward = 6 * 2 * 2 * 64 * 256 * 16 * 32
    assert flops(row(tmp_path, experts=8, experts_per_token=3)) == pytest.approx(dense + 2 * feed_forward)
    assert flops(row(tmp_path, gated_mlp=1)) == pytest.approx(dense + feed_forward / 2)
    assert flops(row(tmp_path, kv_heads=1)) == pytest.approx(dense - 6 * 2 * 2 * 64 * 48 * 16 * 32)


def test_flops_of_images_and_of_what_says_too_little(tmp_path):
    assert flops(row(tmp_path, model="resnet50", layers="", global_batch=2)) == 12 * 4.089e9
    assert flops(row(tmp_path, layers="")) is None and flops(row(tmp_path, global_batch="")) is None


def test_each_row_is_predicted_with_the_median_utilisation_of_the_others(tmp_path):
    rows = [row(tmp_path, id=str(n), table=table, step_seconds=seconds)
            for n, (table, seconds) in enumerate([("a", 2), ("a", 4), ("a", 5), ("b", 1), ("a", "")])]  # fmt: skip
    errors = null_errors(rows, [1.0] * 5, lambda row: row.table)
    assert errors[:3] == pytest.approx([0.5 / 0.225 - 1, 0.25 / 0.35 - 1, 0.2 / 0.375 - 1])
    assert errors[3:] == [None, None]
    assert null_errors(rows[:2], [1.0, None], lambda row: row.table) == [None, None]
