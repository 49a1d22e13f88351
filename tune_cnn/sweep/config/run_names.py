"""The names of experiments: a pattern such as `exp1_1_K{K}_L{L}`, filled in from an experiment's settings."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from tune_cnn.rules import shown
from tune_cnn.settings import ARGUMENT_PREFIX, KEYS, Settings, dashed, varied_keys, with_arguments_apart
from tune_cnn.texts import enumerated

SHORT = {"K": "filters_per_layer", "L": "layers_per_block", "P": "pool_every", "S": "seed"}
_SAMPLE = "{sample}"  # the number of a sample of the search, such as 007
_MAX_LISTED = 40  # names in a message
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


def run_name(pattern: str, settings: Settings, sample: int = 0) -> str:
    """Fill in a pattern without faults.

    >>> run_name("exp_K{K}_L{L}_lr{lr}_{sample}", Settings(filters_per_layer=(64, 128), lr=1e-3), 7)
    'exp_K64-128_L2_lr0.001_007'
    """
    pattern = pattern.replace(_SAMPLE, f"{sample:03d}")
    values = {**vars(settings), **with_arguments_apart({"model_args": settings.model_args}), "model": settings.network}
    return _PLACEHOLDER.sub(lambda found: _text(values.get(SHORT.get(found[1], found[1]))), pattern)


def with_seed(pattern: str) -> str:
    """A pattern that tells seeds apart: `_S{S}` is appended if it has no placeholder for them.

    >>> with_seed("exp_K{K}"), with_seed("exp_{seed}_K{K}")
    ('exp_K{K}_S{S}', 'exp_{seed}_K{K}')
    """
    return pattern if "{S}" in pattern or "{seed}" in pattern else pattern + "_S{S}"


def pattern_problems(pattern: str, grid: Mapping[str, Sequence[Any]], samples: int | None = None) -> list[str]:
    """The faults of a pattern: malformed, unknown placeholders, and a varied key without one.

    Args:
        pattern: The value of `run_name`.
        grid: The values of each varied settings key.
        samples: How many a search draws; 0: there is no search; None: that is not known.
    """
    problems = []
    if samples == 0 and _SAMPLE in pattern:
        problems = [f"run_name: {_SAMPLE} numbers what a search draws; write search:, or take it out"]
    elif samples is not None and samples > 1 and _SAMPLE not in pattern:
        problems = [f"run_name: {shown(pattern)} gives all samples one name; add {_SAMPLE}"]
    keys = {SHORT.get(name, name): name for name in _PLACEHOLDER.findall(pattern.replace(_SAMPLE, ""))}
    if re.search("[{}]", _PLACEHOLDER.sub("", pattern)):
        remedy = "a placeholder reads {K} or {lr}, and nothing else has braces"
        return [f"run_name: {shown(pattern)} has a stray brace; {remedy}"]
    if unknown := sorted(key for key in keys if key not in KEYS and not key.startswith(ARGUMENT_PREFIX)):
        known = ", ".join(f"{{{key}}}" for key in (*SHORT, *KEYS))
        return [f"run_name: {{{key}}} is not a placeholder; there are {known}" for key in unknown]
    shortest = {long: short for short, long in SHORT.items()}
    return problems + [
        f"run_name: {shown(pattern)} gives {key} {values[0]} and {values[1]} one name; add {{{shortest.get(key, key)}}}"
        for key, values in grid.items()
        if len(values) > 1 and key not in keys
    ]


def unmatched(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The patterns of `--only` or `--finish` that match no name, each with the names that there are."""
    listed = enumerated(names, _MAX_LISTED)
    return [
        f"{pattern!r} matches no name; there are {listed}"
        for pattern in patterns
        if not any(fnmatchcase(name, pattern) for name in names)
    ]


def name_clashes(found: Mapping[str, Sequence[tuple[str, Settings]]]) -> dict[str, str]:
    """The files with a name that was given already, each with the fault of the first such name.

    Args:
        found: Names and settings of each file's experiments.
    """
    clashes: dict[str, str] = {}
    owners: dict[str, tuple[str, tuple[str, Settings]]] = {}
    for place, experiments in found.items():
        for experiment in experiments:
            owner, other = owners.setdefault(experiment[0], (place, experiment))
            if other is not experiment and place not in clashes:
                two = "two experiments" if owner == place else f"an experiment of {owner} too"
                remedy = _remedy(other[1], experiment[1])
                clashes[place] = f"run_name: {experiment[0]!r} names {two}{remedy}"
    return clashes


def _remedy(one: Settings, other: Settings) -> str:
    """What to do about two experiments of one name."""
    for key in varied_keys([one.flat(), other.flat()]):
        if not key.startswith("data."):
            values = f"{one.flat().get(key)} and {other.flat().get(key)}"
            return f", {key} {values}; change the pattern to tell them apart, as with {{{key}}}"
    if one.data != other.data:
        return ", on other images; change the pattern of one of them"
    return " with the same settings; keep one of them"


def _text(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple | list):
        return dashed(value)
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
