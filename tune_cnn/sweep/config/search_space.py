"""The distributions of a search, as in Tune: checked, then drawn from before the sweep starts."""

import math
from collections.abc import Mapping
from typing import Any

from tune_cnn.rules import plain, shown, suggest

# Arguments by distribution, both named as in ray.tune; `low` of the logarithmic ones is above 0.
DISTRIBUTIONS = {
    "uniform": ("low", "high"),
    "quniform": ("low", "high", "q"),
    "loguniform": ("low", "high"),
    "qloguniform": ("low", "high", "q"),
    "randint": ("low", "high"),
    "qrandint": ("low", "high", "q"),
    "lograndint": ("low", "high"),
    "qlograndint": ("low", "high", "q"),
    "choice": ("categories",),
}
_DIGITS = 6  # of a drawn number, so that it is printed exactly


def distribution_fault(value: Any) -> str | None:
    """The fault of a distribution such as `{"loguniform": [1e-4, 1e-2]}`; None if it is valid."""
    if not isinstance(value, dict) or len(value) != 1:
        return f"{shown(value)} is not a distribution; write one such as {{loguniform: [1.0e-4, 1.0e-2]}}"
    ((name, arguments),) = value.items()
    if name not in DISTRIBUTIONS:
        return f"{name}: unknown distribution; {suggest(str(name), DISTRIBUTIONS)}"
    names = DISTRIBUTIONS[name]
    wanted = "a list of values" if name == "choice" else f"[{', '.join(names)}]"
    if not isinstance(arguments, list) or not arguments or (name != "choice" and len(arguments) != len(names)):
        return f"{name}: {shown(arguments)} is not {wanted}"
    if name == "choice":
        return None
    kind = "whole number" if "randint" in name else "number"
    for argument in arguments:
        is_kind = type(argument) is int or (kind == "number" and type(argument) is float)
        if not is_kind or not abs(argument) < 2**63:
            return f"{name}: {shown(argument)} is not a {kind}; give {wanted}"
    low, high, *step = arguments
    if "log" in name and low <= 0:
        return f"{name}: low is {low}, which has no logarithm; give one above 0"
    if not low < high:
        return f"{name}: low is {low} and high is {high}; give a low below the high"
    for q in step:
        if q <= 0 or any(not math.isclose(bound / q, round(bound / q)) for bound in (low, high)):
            return f"{name}: {low} and {high} are not both multiples of q, {q}; give multiples"
    return None


def bounds(distribution: Mapping[str, Any]) -> list[Any]:
    """The extreme values, or all choices; if these are valid settings, so is every sample."""
    ((name, arguments),) = distribution.items()
    if name == "choice":
        return list(arguments)
    low, high = arguments[:2]
    return [low, high - 1 if name in ("randint", "lograndint") else high]


def draw(search: Mapping[str, Mapping[str, Any]], seed: int, sample: int) -> dict[str, Any]:
    """Draw the values of one sample of a search; samples count from 0.

    Each key and sample has its own random numbers, so adding samples or keys leaves the others unchanged.
    """
    import numpy as np
    from ray import tune

    drawn = {}
    for key, distribution in search.items():
        ((name, arguments),) = distribution.items()
        domain = tune.choice(arguments) if name == "choice" else getattr(tune, name)(*arguments)
        value = domain.sample(random_state=np.random.default_rng([seed, sample, *key.encode()]))
        drawn[key] = rounded(plain(value))
    return drawn


def rounded(value: Any) -> Any:
    """Round a drawn float to the digits that are printed; other values stay as they are."""
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
