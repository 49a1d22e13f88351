"""Sweeps side by side: which cells changed, and by how much."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from tune_cnn.report.noise import difference, mean
from tune_cnn.report.runs import Run
from tune_cnn.report.wording import number
from tune_cnn.settings import telling_keys
from tune_cnn.texts import by_size, setting_text, symbol


class Comparison(NamedTuple):
    """How sweeps differ."""

    # A header, then a row per cell: the settings that vary within a sweep, each sweep's best validation accuracy in
    # percent, and the difference of each further sweep from the first.
    rows: list[list[str]]
    best: str  # the best training of each sweep, and its accuracy
    settings: list[str]  # a line for each setting that differs between the sweeps, but not within any of them
    changed: int  # cells that differ from the first sweep by more than noise
    missing: int  # cells with a final result in some sweeps, but not in all


def compare(sweeps: Mapping[str, Sequence[Run]]) -> Comparison:
    """Compare the accuracies of two or more sweeps, cell by cell; each further sweep is compared with the first.

    If both have several seeds, a difference is a change if its 95 % interval (Welch) excludes 0. Otherwise any
    difference is, since a single run says nothing about the noise.
    """
    flat = {  # without the seed: runs that differ only in it are one cell
        name: [{key: value for key, value in run.values.items() if key != "seed"} for run in runs]
        for name, runs in sweeps.items()
    }
    keys = list(dict.fromkeys(key for values in flat.values() for key in telling_keys(values)))
    first, *others = sweeps
    cells: dict[tuple[str, ...], dict[str, list[float]]] = {}  # values of what varies -> sweep -> accuracies
    for name, runs in sweeps.items():
        for run, values in zip(runs, flat[name], strict=True):
            varied = tuple(setting_text(values.get(key)) for key in keys)
            cell = cells.setdefault(varied, {sweep: [] for sweep in sweeps})
            if run.accuracy is not None and run.is_finished:
                cell[name].append(run.accuracy)
    changed = missing = 0
    rows = [[*map(symbol, keys), *sweeps, *(f"{name} - {first}" for name in others)]]
    for varied, cell in sorted(cells.items(), key=lambda item: list(map(by_size, item[0]))):
        changes = [_difference(cell[name], cell[first]) for name in others]
        changed += any(is_change for _, is_change in changes)
        missing += any(cell.values()) and not all(cell.values())
        means = [number(mean(accuracies), 2) for accuracies in cell.values()]
        rows.append([*varied, *means, *(text for text, _ in changes)])
    seeds = {name: {setting_text(run.settings.seed) for run in runs} for name, runs in sweeps.items()}
    one_each = {
        name: {"seed": sorted(seeds[name], key=by_size), **values[0]} for name, values in flat.items() if values
    }
    settings = []
    for key in [key for key in telling_keys(one_each.values()) if key not in keys]:
        parts = [f"{setting_text(values.get(key))} in {name}" for name, values in one_each.items()]
        settings.append(f"{symbol(key)}: {', '.join(parts)}")
    best = [f"{name} {_best(runs)}" for name, runs in sweeps.items()]
    return Comparison(rows, f"best validation accuracy in %: {', '.join(best)}", settings, changed, missing)


def _best(runs: Sequence[Run]) -> str:
    finished = [(run.accuracy, run.names[0]) for run in runs if run.accuracy is not None and run.is_finished]
    return "{:.2f} ({})".format(*max(finished, key=lambda one: one[0])) if finished else "none"  # the first, if equal


def _difference(theirs: Sequence[float], ours: Sequence[float]) -> tuple[str, bool]:
    """The difference as text, and whether it is a change."""
    if not theirs or not ours:
        return ("missing" if theirs or ours else "–"), False
    gap = difference(theirs, ours)
    if gap is None:
        value = fmean(theirs) - fmean(ours)
        return ("same" if value == 0 else f"{value:+.2f}"), value != 0
    return f"{gap.value:+.2f} ± {gap.margin:.2f}", not gap.is_noise
