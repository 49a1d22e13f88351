"""Names of experiments, made by filling in a pattern such as `exp1_1_K{K}_L{L}` from an experiment's settings."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from tune_cnn.errors import ConfigError
from tune_cnn.rules import shown, suggest
from tune_cnn.settings import ARGUMENT_PREFIX, KEYS, Settings, with_arguments_apart
from tune_cnn.texts import enumerated, setting_text

SHORT = {"K": "filters_per_layer", "L": "layers_per_block", "P": "pool_every", "S": "seed"}
_SAMPLE = "sample"  # the placeholder of the number of a sample of the search, such as 007
_MAX_LISTED = 40  # names in a message
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


def run_name(pattern: str, settings: Settings, sample: int = 0) -> str:
    """Fill in a valid pattern.

    >>> run_name("exp_K{K}_L{L}_lr{lr}_{sample}", Settings(filters_per_layer=(64, 128), lr=1e-3), 7)
    'exp_K64-128_L2_lr0.001_007'
    """
    values = {**vars(settings), **with_arguments_apart({"model_args": settings.model_args}), "model": settings.network}
    values[_SAMPLE] = f"{sample:03d}"
    return _PLACEHOLDER.sub(lambda match: _text(values.get(SHORT.get(match[1], match[1]))), pattern)


def pattern_problems(pattern: str, axes: Mapping[str, Sequence[Any]]) -> list[str]:
    """The faults of a pattern: a stray brace, unknown placeholders, varied keys without a placeholder.

    `axes` are the values that keys take, and the numbers of the samples as `sample`.
    """
    keys = {SHORT.get(name, name) for name in _PLACEHOLDER.findall(pattern)}
    if re.search("[{}]", _PLACEHOLDER.sub("", pattern)):
        remedy = "a placeholder reads {K} or {lr}, and nothing else has braces"
        return [f"run_name: {shown(pattern)} has a stray brace; {remedy}"]
    if unknown := sorted(key for key in keys - {*KEYS, _SAMPLE} if not key.startswith(ARGUMENT_PREFIX)):
        return [f"run_name: {{{key}}} is not a placeholder; {suggest(key, (*SHORT, *KEYS))}" for key in unknown]
    shortest = {long: short for short, long in SHORT.items()}
    return [
        f"run_name: {shown(pattern)} gives {key} {values[0]} and {values[1]} one name; add {{{shortest.get(key, key)}}}"
        for key, values in axes.items()
        if len(values) > 1 and key not in keys
    ]


def unmatched(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The faults of the patterns of `--only` or `--finish` that match no name."""
    listed = enumerated(names, _MAX_LISTED)
    return [
        f"{pattern!r} matches no name; there are {listed}"
        for pattern in patterns
        if not any(fnmatchcase(name, pattern) for name in names)
    ]


def settings_of(name: str, experiments: Mapping[str, Settings], place: str) -> Settings:
    """The settings of the experiment of that name; if there is none, a ConfigError lists those that exist."""
    if name not in list(experiments):  # a list, as a notebook may give an unhashable value
        raise ConfigError(place, [f"{name}: no such experiment; there are {', '.join(experiments)}"])
    return experiments[name]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else setting_text(value)
