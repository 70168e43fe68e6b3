"""The table of a profile: it fits 80 columns, and blocks that are alike and follow one another are one row."""

import json

import minidl
from minidl import models, nn
from minidl.profile_table import folded
from minidl.profiling import Profile, Row, profile


def row(name, kind="Block", flops=7, seconds=None):
    return Row(name, kind, (2, 3), 5, flops, flops, 8, 8, 4, seconds, seconds)


def shown(rows):
    return [(row.name, row.kind, count) for row, count in folded(rows)]


def test_blocks_that_are_alike_and_follow_one_another_are_one_row_with_a_count():
    rows = [row("0", "Embedding"), *(row(str(i)) for i in range(1, 97)), row("97"), row("98", flops=8), row("99")]
    assert shown(rows) == [("0", "Embedding", 1), ("1…97", "Block", 97), ("98", "Block", 1), ("99", "Block", 1)]
    assert shown(rows[1:2]) == [("1", "Block", 1)] and shown([]) == []


def test_the_times_of_a_folded_row_are_the_mean_and_all_else_is_that_of_each():
    ((merged, count),) = folded([row("0", seconds=1.0), row("1", seconds=2.0), row("2", seconds=6.0)])
    assert count == 3 and merged == row("0…2", seconds=3.0)
    ((unmeasured, _),) = folded([row("0", seconds=1.0), row("1")])
    assert unmeasured.forward_seconds is None


def block(name, flops=7):
    """A block in three rows, two of its parts alike, and what it does beside them."""
    return [row(f"{name}.norm", "Norm"), row(f"{name}.layers.0"), row(f"{name}.layers.1"), row(name, "(rest)", flops)]


def test_blocks_in_several_rows_fold_as_a_whole_and_so_do_their_parts():
    rows = [*block("0"), *block("1"), *block("2", flops=8), row("3")]
    assert shown(rows) == [
        ("0…1.norm", "Norm", 2), ("0…1.layers.0…1", "Block", 4), ("0…1", "(rest)", 2),
        ("2.norm", "Norm", 1), ("2.layers.0…1", "Block", 2), ("2", "(rest)", 1),
        ("3", "Block", 1),
    ]  # fmt: skip


def test_the_counts_of_all_rows_add_up_to_the_rows_that_a_program_gets():
    with minidl.device("meta"):
        model = models.builder("gpt3-175b")()
        found = profile(model, model.example(1)[0], depth=3, show=False)
    kept = json.loads(json.dumps(found.as_dict()))["rows"]
    assert len(kept) == len(found.rows) == 4 + 96 * 10 + 3
    assert sum(count for _, count in folded(found.rows)) == len(kept)
    assert sum(row.forward_flops * count for row, count in folded(found.rows)) == found.total.forward_flops


def test_the_table_of_a_large_model_is_short_fits_80_columns_and_says_what_it_counts():
    with minidl.device("meta"):
        model = models.builder("gpt3-175b")()
        text = str(profile(model, model.example(1)[0], show=False))
    assert len(text.splitlines()) < 15 and max(map(len, text.splitlines())) <= 80
    assert "1…96 GPTBlock ×96" in text and "×n: n blocks alike" in text and "FLOP/s" not in text


def test_the_widest_rows_of_measured_times_fit_80_columns():
    wide = Row("10…95", "TransformerBlock", (64, 2048, 12288), 1_812_099_072, *[999 * 10**9] * 4, 10**12, 1e-3, 119.0)
    text = str(Profile((wide,), wide))
    assert max(map(len, text.splitlines())) <= 80 and "119 s" in text and "1,812,099,072" in text
    assert " 16.8 G\n" in text  # FLOP/s
    assert "×n" not in text  # nothing was folded


def test_work_a_second_has_no_exponent_however_much_it_is():
    for flops, rate in ((10**12, "1 T"), (617 * 10**9, "617 G"), (1234567 * 10**6, "1.23 T"), (100, "100")):
        one = Row("0", "Linear", (2, 3), 5, flops, flops, 8, 8, 4, 1.0, 1.0)
        assert str(Profile((one,), one)).splitlines()[2].endswith(f" {rate}")


def test_no_word_is_cut_where_a_name_is_long():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)) for _ in range(3)))
    long = Row(
        "a_block_with_a_very_long_name.and_a_part_of_it.attention", "RowParallelLinear", (1, 2), 1, 1, 1, 1, 1, 1
    )
    lines = str(Profile((long, long), long)).splitlines()
    assert any("RowParallelLinear" in line for line in lines) and max(map(len, lines)) <= 80
    assert shown([long, long]) == [(long.name, long.kind, 1)] * 2  # of one name: no two blocks
    text = str(profile(model, minidl.ones(2, 6), depth=2, repeats=1, show=False))
    assert "1…2.0 Linear ×2" in text and "1…2.1 LayerNorm ×2" in text  # the first has no gradient to give
