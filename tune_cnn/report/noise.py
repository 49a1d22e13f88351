"""What several runs of a cell tell: a mean with its 95 % interval, and whether two means differ by more than noise."""

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, variance
from typing import NamedTuple

import numpy as np


class Mean(NamedTuple):
    """The mean of some runs."""

    value: float
    margin: float | None  # half the width of its 95 % interval (Student's t); None for a single run


class Difference(NamedTuple):
    """How much higher one mean is than another, with the 95 % interval of that (Welch)."""

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether the interval holds 0."""
        return self.low <= 0 <= self.high


def mean(values: Sequence[float]) -> Mean | None:
    """The mean of the runs; None without one."""
    if not values:
        return None
    count = len(values)
    if count == 1:
        return Mean(values[0], None)
    return Mean(fmean(values), t_quantile(count - 1) * math.sqrt(variance(values) / count))


def difference(higher: Sequence[float], lower: Sequence[float]) -> Difference | None:
    """The difference of two means; None if either has less than two runs."""
    if len(higher) < 2 or len(lower) < 2:
        return None
    value = fmean(higher) - fmean(lower)
    parts = [variance(values) / len(values) for values in (higher, lower)]
    total = sum(parts)
    if total == 0:
        return Difference(value, value, value)
    # Welch and Satterthwaite
    freedom = 1 / sum((p / total) ** 2 / (len(v) - 1) for p, v in zip(parts, (higher, lower), strict=True))
    margin = t_quantile(freedom) * math.sqrt(total)
    return Difference(value, value - margin, value + margin)


@cache
def t_quantile(freedom: float) -> float:
    """The t that holds 95 % of Student's distribution between -t and t, to five digits.

    With t = sqrt(freedom) tan(angle) the density becomes a power of the cosine, which is smooth and has no long tails.

    Args:
        freedom: Degrees of freedom, 1 or more; they need not be whole.
    """
    angles = np.linspace(0, min(math.pi / 2, 40 / math.sqrt(freedom)), 20_001)  # nothing is left beyond t = 40
    density = np.cos(angles) ** (freedom - 1)
    below = np.cumsum(density) - (density + density[0]) / 2  # the integral up to each angle, in steps
    return math.sqrt(freedom) * math.tan(np.interp(0.95 * below[-1], below, angles))
