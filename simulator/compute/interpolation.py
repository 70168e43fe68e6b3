"""What is between the points that were measured."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

Points = Sequence[tuple[float, float]]  # (x, y) by rising x


def interpolate(points: Points, x: float, growing: bool = True) -> float:
    """Log-log interpolation between (x, y) points by rising x.

    Below the first point y stays as it is; beyond the last it grows in proportion to x, unless it is not `growing`.
    """
    if x <= points[0][0] or len(points) == 1:
        return points[0][1]
    i = min(bisect.bisect([p[0] for p in points], x), len(points) - 1)
    (x0, y0), (x1, y1) = points[i - 1], points[i]
    x0 = max(x0, 1.0)
    if x >= x1:
        return y1 * x / x1 if growing else y1
    return y0 * (y1 / y0) ** (math.log(x / x0) / math.log(x1 / x0))
