"""What a value must be, what is wrong with one, and what was probably meant."""

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """What a value must be: in words, and as a test."""

    wanted: str
    holds: Callable[[Any], bool]


def _is_int(value: object, least: float) -> bool:
    # PyTorch counts in 64 bits; nothing that is counted here comes near.
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def integer(least: int, optional: bool = False) -> Rule:
    """A whole number from `least` up; with `optional`, also null."""
    wanted = f"a whole number from {least} up" + (", or null" if optional else "")
    return Rule(wanted, lambda v: _is_int(v, least) or (optional and v is None))


def integers(example: str, least_items: int) -> Rule:
    """A list of at least so many whole numbers from 1 up."""
    return Rule(
        f"a list of whole numbers from 1 up, such as {example}",
        lambda v: isinstance(v, list | tuple) and len(v) >= least_items and all(_is_int(item, 1) for item in v),
    )


def number(least: float, below: float = math.inf, above: bool = False) -> Rule:
    """A number from `least` up, or `above` it, and less than `below`."""
    wanted = f"a number {f'above {least:g}' if above else f'from {least:g} up'}"
    wanted += f" and below {below:g}" if below < math.inf else ""
    return Rule(wanted, lambda v: _is_number(v) and (v > least if above else v >= least) and v < below)


def one_of(*choices: str) -> Rule:
    """One of some texts."""
    return Rule(f"one of {', '.join(choices)}", lambda v: v in choices)


def flag() -> Rule:
    """True or false."""
    return Rule("true or false", lambda v: isinstance(v, bool))


def text(optional: bool = False) -> Rule:
    """A text that is not empty; with `optional`, also null."""
    return Rule(
        "a text" + (", or null" if optional else ""),
        lambda v: (isinstance(v, str) and v != "") or (optional and v is None),
    )


def check(values: Mapping[str, Any], rules: Mapping[str, Rule], prefix: str = "") -> list[str]:
    """The faults of a mapping, one line each: unknown keys, and values that break their rule.

    >>> check({"learning_rte": 1, "epochs": "ten"}, SETTINGS_RULES, "settings.")
    ["settings.learning_rte: unknown key; did you mean 'lr'?", "settings.epochs: 'ten' is not a whole number from 1 up"]
    """
    problems = []
    for key, value in values.items():
        if key not in rules:
            problems.append(f"{prefix}{key}: unknown key; {suggest(str(key), rules)}")
        elif not rules[key].holds(value):
            problems.append(f"{prefix}{key}: {value!r} is not {rules[key].wanted}")
    return problems


# What users of other tools type, and no spelling distance finds.
_SYNONYMS = {
    "learning_rate": "lr", "learning_rte": "lr", "weight_decay": "reg", "batch_size": "bs_train",
    "patience": "early_stopping", "num_epochs": "epochs", "max_epochs": "epochs", "filters": "filters_per_layer",
    "K": "filters_per_layer", "L": "layers_per_block", "P": "pool_every",
}  # fmt: skip


def suggest(key: str, known: Collection[str]) -> str:
    """The remedy for an unknown key: the nearest known one, or all of them."""
    # A synonym goes first: batch_size is spelled nearer to batches than to bs_train.
    near = [key] if _SYNONYMS.get(key) in known else difflib.get_close_matches(key, known, n=1)
    near = near or difflib.get_close_matches(key, _SYNONYMS, n=1, cutoff=0.8)
    target = _SYNONYMS.get(near[0], near[0]) if near else None
    return f"did you mean '{target}'?" if target in known else f"keys are {', '.join(known)}"


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}")
_NAME_RULE = "use at most 100 letters, digits and . _ + = - without '..', and begin with a letter or a digit"


def name_problems(name: object) -> list[str]:
    """What keeps the name of an experiment or a sweep from being a file name everywhere: nothing, or one fault."""
    if isinstance(name, str) and _NAME.fullmatch(name) and ".." not in name:
        return []
    shown = name if not isinstance(name, str) or len(name) <= 120 else name[:100] + "..."
    return [f"{shown!r} cannot be a name; {_NAME_RULE}"]
