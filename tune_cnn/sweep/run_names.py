"""The names of experiments: a pattern such as `exp1_1_K{K}_L{L}`, filled in from an experiment's settings."""

import string
from collections.abc import Mapping, Sequence
from typing import Any

from tune_cnn.settings import KEYS, Settings, dashed

SHORT = {"K": "filters_per_layer", "L": "layers_per_block", "P": "pool_every", "S": "seed"}


def run_name(pattern: str, settings: Settings) -> str:
    """Fill in a pattern without faults.

    >>> run_name("exp_K{K}_L{L}_lr{lr}", Settings(filters_per_layer=(64, 128), lr=1e-3))
    'exp_K64-128_L2_lr0.001'
    """
    return "".join(literal + (_text(getattr(settings, key)) if key else "") for literal, key in _parts(pattern))


def with_seed(pattern: str) -> str:
    """A pattern without faults that tells seeds apart: `_S{S}` is appended if it has no placeholder for them.

    >>> with_seed("exp_K{K}"), with_seed("exp_{seed}_K{K}")
    ('exp_K{K}_S{S}', 'exp_{seed}_K{K}')
    """
    return pattern if any(key == "seed" for _, key in _parts(pattern)) else pattern + "_S{S}"


def pattern_problems(pattern: object, grid: Mapping[str, Sequence[Any]]) -> list[str]:
    """The faults of a pattern: malformed, unknown placeholders, and a varied key without one.

    Args:
        pattern: The value of `run_name`.
        grid: The values of each varied settings key.
    """
    if not isinstance(pattern, str) or not pattern:
        return [f"run_name: {pattern!r} is not a text; write a pattern such as 'exp_K{{K}}_L{{L}}', in quotes"]
    try:
        keys = {key for _, key in _parts(pattern) if key}
    except ValueError:
        return [
            f"run_name: {pattern!r} has a stray brace; a placeholder reads {{K}} or {{lr}}, and nothing else has braces"
        ]
    unknown = sorted(keys.difference(KEYS))
    if unknown:
        known = ", ".join(f"{{{key}}}" for key in (*SHORT, *KEYS))
        return [f"run_name: {{{key}}} is not a placeholder; there are {known}" for key in unknown]
    return [
        f"run_name: {pattern!r} gives {key} {values[0]} and {values[1]} one name; add {{{_shortest(key)}}}"
        for key, values in grid.items()
        if len(values) > 1 and key not in keys
    ]


def _parts(pattern: str) -> list[tuple[str, str]]:
    """A pattern as pairs: a literal text, and the settings key that follows it or an empty text.

    Raises:
        ValueError: A brace that belongs to no placeholder, or anything that a placeholder may not have.
    """
    parts = []
    for literal, name, spec, conversion in string.Formatter().parse(pattern):
        if "{" in literal or "}" in literal or name == "":
            raise ValueError(pattern)
        # A conversion, a format, an attribute or an index stays part of the name, which is thereby unknown.
        name = (name or "") + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
        parts.append((literal, SHORT.get(name, name)))
    return parts


def _shortest(key: str) -> str:
    return next((short for short, long in SHORT.items() if long == key), key)


def _text(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return dashed(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
