"""Numbers for people: three digits in the unit that fits."""

import pytest

from minidl.units import counted, duration, in_words, rate, scaled


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (38_400, "38.4 kB"), (1e6, "1 MB"), (2.5e8, "250 MB"), (8e10,
     "80 GB"), (2.8e12, "2.8 TB"), (1.234e21, "1,230 EB")],
)  # fmt: skip
def test_sizes_have_three_digits_and_a_prefix(number, text):
    assert scaled(number, "B") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (3e-9, "0.003 µs"), (1.5e-5, "15 µs"), (9.995e-4, "999 µs"),
     (9.996e-4, "1 ms"), (0.01234, "12.3 ms"), (0.9996, "1 s"),
     (119, "119 s"), (119.9, "2 min"), (120, "2 min"), (7200, "2 h"), (86400, "24 h"), (2 * 86400, "2 days"),
     (86400 * 1234.5, "1,230 days"), (-0.004, "-4 ms"), (float("nan"), "nan s"), (float("inf"), "inf s")],
)  # fmt: skip
def test_times_have_three_digits_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text


def test_a_rate_names_what_is_counted():
    assert [rate(n, "samples") for n in (0.1234, 12345.6, 999_499, 999_501, 1.5e9, float("inf"))] == [
        "0.123 samples/s", "12,300 samples/s", "999,000 samples/s", "1 million samples/s", "1.5 billion samples/s",
        "inf samples/s",
    ]  # fmt: skip


def test_one_is_no_plural():
    assert [counted(n, "rank") for n in (0, 1, 2, 1024)] == ["0 ranks", "1 rank", "2 ranks", "1,024 ranks"]


def test_what_is_counted_is_told_in_words():
    assert [in_words(n, "tokens") for n in (7, 1e6, 2.5e9, 300e9, 15e12, 2e16)] == [
        "7 tokens", "1 million tokens", "2.5 billion tokens", "300 billion tokens", "15 trillion tokens",
        "20,000 trillion tokens",
    ]  # fmt: skip
