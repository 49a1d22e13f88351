"""Statistics over the runs of a cell: means with 95 % intervals, and whether two means differ by more than noise."""

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, variance
from typing import NamedTuple

import numpy as np


class Mean(NamedTuple):
    """The mean over runs, or the difference of two means."""

    value: float
    margin: float | None  # half the width of its 95 % interval (Student's t, Welch); None for a single run

    @property
    def is_noise(self) -> bool:
        """Whether the interval of a difference contains 0."""
        return self.margin is not None and abs(self.value) <= self.margin


def mean(values: Sequence[float]) -> Mean | None:
    """The mean of the values; None if there are none."""
    if not values:
        return None
    count = len(values)
    if count == 1:
        return Mean(values[0], None)
    return Mean(fmean(values), t_quantile(count - 1) * math.sqrt(variance(values) / count))


def difference(higher: Sequence[float], lower: Sequence[float]) -> Mean | None:
    """The difference of two means; None if either has fewer than two runs."""
    if len(higher) < 2 or len(lower) < 2:
        return None
    value = fmean(higher) - fmean(lower)
    parts = [variance(values) / len(values) for values in (higher, lower)]
    total = sum(parts)
    if total == 0:
        return Mean(value, 0)
    # Welch-Satterthwaite
    freedom = 1 / sum((p / total) ** 2 / (len(v) - 1) for p, v in zip(parts, (higher, lower), strict=True))
    return Mean(value, t_quantile(freedom) * math.sqrt(total))


@cache
def t_quantile(freedom: float) -> float:
    """The t for which 95 % of Student's distribution lies between -t and t, to five digits.

    With t = sqrt(freedom) tan(angle), the density becomes a power of the cosine, which is smooth and has no long tails.

    Args:
        freedom: Degrees of freedom, 1 or more, not necessarily an integer.
    """
    angles = np.linspace(0, min(math.pi / 2, 40 / math.sqrt(freedom)), 20_001)  # beyond t = 40, nothing is left
    density = np.cos(angles) ** (freedom - 1)
    below = np.cumsum(density) - (density + density[0]) / 2  # trapezoidal integral up to each angle, in steps
    return math.sqrt(freedom) * math.tan(np.interp(0.95 * below[-1], below, angles))
