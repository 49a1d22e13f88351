"""Sweeps side by side: which cells changed, and by how much."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tune_cnn.report.noise import difference, mean
from tune_cnn.report.runs import Run
from tune_cnn.report.wording import number
from tune_cnn.settings import varied_keys
from tune_cnn.texts import setting_text

_SHOWN = {"filters_per_layer": "K", "layers_per_block": "L", "pool_every": "P"}
_NOT_COMPARED = ("seed", "bs_test")  # runs of several seeds are one cell; `bs_test` follows from `bs_train`


class Comparison(NamedTuple):
    """What some sweeps have in common, and what not.

    Attributes:
        rows: A head, then a row a cell: what varies within a sweep, each sweep's best validation accuracy in percent,
            and how far each further sweep's differs from the first one's.
        settings: A line for each setting that differs between the sweeps, and not within one.
        changed: How many cells differ from the first sweep by more than noise.
        missing: How many cells have no result in some sweep.
    """

    rows: list[list[str]]
    settings: list[str]
    changed: int
    missing: int


def compare(sweeps: Mapping[str, Sequence[Run]]) -> Comparison:
    """Compare the accuracies of two sweeps or more, cell by cell.

    Where both have several seeds, a difference is a change if its 95 % interval (Welch) leaves out 0; else if it is not
    0, since one run tells nothing of the noise.

    Args:
        sweeps: The runs of each sweep, by its name; the first one is what the others are compared with.
    """
    flat = {name: [_values(run) for run in runs] for name, runs in sweeps.items()}
    keys = list(dict.fromkeys(key for values in flat.values() if values for key in varied_keys(values)))
    first, *others = sweeps
    cells: dict[str, dict[str, list[Run]]] = {}
    for name, runs in sweeps.items():
        for run, values in zip(runs, flat[name], strict=True):
            place = json.dumps([values.get(key) for key in keys])
            cells.setdefault(place, {}).setdefault(name, []).append(run)
    changed = missing = 0
    rows = [[*(_SHOWN.get(key, key) for key in keys), *sweeps, *(f"{name} - {first}" for name in others)]]
    for place, found in cells.items():
        accuracies = {
            name: [run.accuracy for run in found.get(name, []) if run.accuracy is not None] for name in sweeps
        }
        told = [_difference(accuracies[name], accuracies[first]) for name in others]
        changed += any(is_change for _, is_change in told)
        missing += any(accuracies.values()) and not all(accuracies.values())
        level = map(setting_text, json.loads(place))
        rows.append([*level, *(number(mean(accuracies[name]), 2) for name in sweeps), *(text for text, _ in told)])
    return Comparison(rows, _settings(flat, keys), changed, missing)


def _difference(theirs: Sequence[float], ours: Sequence[float]) -> tuple[str, bool]:
    """The difference in words, and whether it is a change."""
    if not theirs or not ours:
        return ("missing" if theirs or ours else "–"), False
    found = difference(theirs, ours)
    if found is None:
        value = sum(theirs) / len(theirs) - sum(ours) / len(ours)
        return ("same" if value == 0 else f"{value:+.2f}"), value != 0
    return f"{found.value:+.2f} ± {(found.high - found.low) / 2:.2f}", not found.is_noise


def _settings(flat: Mapping[str, Sequence[Mapping[str, Any]]], keys: Sequence[str]) -> list[str]:
    one_each = {name: values[0] for name, values in flat.items() if values}
    lines = []
    for key in [key for key in varied_keys(one_each.values()) if key not in keys]:
        told = ", ".join(f"{setting_text(values.get(key))} in {name}" for name, values in one_each.items())
        lines.append(f"{_SHOWN.get(key, key)}: {told}")
    return lines


def _values(run: Run) -> dict[str, Any]:
    values = {**run.settings.flat(), **run.unknown}
    return {key: value for key, value in values.items() if key not in _NOT_COMPARED}
