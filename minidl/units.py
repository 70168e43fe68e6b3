"""Numbers for people: three digits, in the unit that fits."""

from __future__ import annotations

import math
from collections.abc import Sequence

PREFIXES = ("", "k", "M", "G", "T", "P", "E")
WORDS = ("", "thousand", "million", "billion", "trillion")
DAY = 86400.0  # seconds
TIMES = (  # name, seconds, and from how many of it on a time is given in it
    ("days", DAY, 2), ("h", 3600.0, 2), ("min", 60.0, 2), ("s", 1.0, 1), ("ms", 1e-3, 1), ("µs", 1e-6, 0),
)  # fmt: skip


def scaled(number: float, unit: str = "") -> str:
    """With a prefix of 1,000: `scaled(1.234e6, "B")` is "1.23 MB"; "4.56 k" without a unit."""
    number, prefix = _shortened(number, PREFIXES)
    return f"{_three_digits(number)} {prefix}{unit}".rstrip()


def duration(seconds: float) -> str:
    """In µs, ms, s, min, h or days; "0 s" of none."""
    if not seconds or not math.isfinite(seconds):
        return f"{seconds or 0} s"
    name, length = time_unit(seconds)
    return f"{_three_digits((seconds if length > 1 else _rounded(seconds)) / length)} {name}"


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit in which `duration` gives so long a time: its name, and its seconds."""
    rounded = abs(_rounded(seconds))
    return next((name, length) for name, length, least in TIMES if rounded >= least * length)


def rate(per_second: float, what: str) -> str:
    """`rate(12345.6, "samples")` is "12,300 samples/s"; from a million on in words, "1.5 billion samples/s"."""
    many = abs(_rounded(per_second)) >= 1e6
    return f"{in_words(per_second, what) if many else f'{_three_digits(per_second)} {what}'}/s"


def counted(number: int, what: str) -> str:
    """`counted(1, "rank")` is "1 rank"; "1,024 ranks"."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def in_words(number: float, what: str) -> str:
    """`in_words(300e9, "tokens")` is "300 billion tokens"."""
    number, word = _shortened(number, WORDS)
    return " ".join(filter(None, (_three_digits(number), word, what)))


def _shortened(number: float, names: Sequence[str]) -> tuple[float, str]:
    """The number in thousands of thousands, and what so many of them are called."""
    size = 0
    while 1000 <= abs(_rounded(number)) < math.inf and size < len(names) - 1:
        number, size = number / 1000, size + 1
    return number, names[size]


def _rounded(number: float) -> float:
    return float(f"{number:.3g}")


def _three_digits(number: float) -> str:
    """To three digits, never with an exponent where there are that many before the point."""
    if not math.isfinite(number) or number == 0 or abs(number) < 1e-3:
        return f"{number:.3g}"
    rounded = _rounded(number)
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"
