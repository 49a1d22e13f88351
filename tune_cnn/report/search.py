"""The report of a search: ranking, accuracy against each setting that varies, and cost."""

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tune_cnn.files import publish_file
from tune_cnn.plot import log_scale, own_style
from tune_cnn.report.figure_files import saved
from tune_cnn.report.grids import Cell, Grid, load_grids
from tune_cnn.report.page_figures import PageFigure, page_figure
from tune_cnn.report.runs import UNCLEAR, Run, is_number
from tune_cnn.report.table import results_line
from tune_cnn.settings import telling_keys
from tune_cnn.texts import by_size, counted, natural, setting_text, symbol

_COLOUR = "#4E96BC"
_LOOKS = [("circles: ran to their end", _COLOUR, "o"), ("triangles: stopped by the scheduler", "#B8860B", "v")]


class SearchReport(NamedTuple):
    """The part of a report that covers the experiments drawn by a search."""

    lines: list[str]  # sentences on what it cost
    ranking: pd.DataFrame  # one row per network, the best first, as texts
    figures: list[PageFigure]  # accuracy against each setting that varies, and the best so far over the epochs


def split_grids(grids: Sequence[Grid]) -> tuple[list[Grid], list[Grid]]:
    """Separate the grids of a search from the others; if there is a search, grids without results belong to it."""
    searched = [grid for grid in grids if any(run.search for run in grid.runs)]
    if searched:
        searched += [g for g in grids if g not in searched and all(run.history is None for run in g.runs)]
    return searched, [grid for grid in grids if grid not in searched]


def search_report(grids: Sequence[Grid]) -> SearchReport:
    """Report on the searched grids, which `split_grids` returns first."""
    runs = _runs(grids)
    keys = _varied(runs)
    shown = [run for run in runs if run.accuracy is not None]
    figures = []
    if shown:
        with own_style():
            key = [(label, colour, False) for label, colour, _ in _LOOKS] if any(map(_is_stopped, shown)) else []
            title = "Best validation accuracy over each setting that varies"
            if keys:
                figures.append(page_figure(title, key, _settings_figure(shown, keys), title))
            title = "Best validation accuracy so far, over the epochs of all trainings in the order of their names"
            figures.append(page_figure(title, [], _progress_figure(shown), title))
    return SearchReport(_cost(runs), _ranking([cell for grid in grids for cell in grid.cells], keys), figures)


def write_search_figure(name: str, result_files: Sequence[Path], out_dir: Path, format: str = "png") -> list[Path]:
    """Write `<name>_search.png`, accuracy against each setting that varies in a search; nothing if none does."""
    runs = _runs(load_grids(result_files))
    shown = [run for run in runs if run.accuracy is not None and run.search]
    if not (keys := _varied(shown)):
        return []
    with own_style():
        fig = _settings_figure(shown, keys, layout="constrained")
        if any(map(_is_stopped, shown)):
            fig.legend(*fig.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        path = out_dir / f"{name}_search.{format}"
        publish_file(path, saved(fig, format))
    return [path]


def _runs(grids: Iterable[Grid]) -> list[Run]:
    return sorted((run for grid in grids for run in grid.runs), key=lambda run: natural(run.names[0]))


def _varied(runs: Sequence[Run]) -> list[str]:
    """The keys that the search drew, then others that vary; not the seed, whose runs belong to the same network."""
    drawn = (key for run in runs for key in run.search if key in run.values)
    others = [key for key in telling_keys(run.values for run in runs) if key != "seed" and not key.startswith("data.")]
    return list(dict.fromkeys([*drawn, *others]))


def _is_stopped(run: Run) -> bool:
    return bool(run.facts.get("stop_reason") == "scheduler")


def _is_final(cell: Cell) -> bool:
    """Whether its accuracy is ranked; that of a diverged or unfinished training is only shown."""
    return cell.state in ("learned", "did not learn", UNCLEAR)


def _ranking(cells: Sequence[Cell], keys: Sequence[str]) -> pd.DataFrame:
    by_name = sorted(cells, key=lambda cell: natural(cell.runs[0].names[0]))
    ranked = sorted(
        by_name, key=lambda cell: (_is_final(cell), cell.accuracy.value if cell.accuracy else -1), reverse=True
    )
    rows = []
    for place, cell in enumerate(ranked, start=1):
        rank = str(place) if _is_final(cell) else "–"
        settings = {symbol(key): setting_text(cell.runs[0].values.get(key)) for key in keys}
        rows.append({"rank": rank, **results_line(cell, settings)})
    return pd.DataFrame(rows).drop(columns=["parameters", "multiply-adds", "at epoch", "expected"])


def _cost(runs: Sequence[Run]) -> list[str]:
    spent, budget = sum(run.epochs for run in runs), sum(run.settings.epochs for run in runs)
    lines = []
    if spent < budget:
        lines.append(f"The search spent {spent} of the {counted(budget, 'epoch')} that its trainings could have had.")
    if stopped := [run for run in runs if _is_stopped(run)]:
        unspent = sum(run.settings.epochs - run.epochs for run in stopped)
        lines.append(f"The scheduler stopped {counted(len(stopped), 'training')}, {counted(unspent, 'epoch')} early.")
    return lines


def _settings_figure(runs: Sequence[Run], keys: Sequence[str], layout: Any = None) -> Figure:
    """Draw a panel per key: the accuracy of each run against its value."""
    columns = min(len(keys), 2)
    rows = -(-len(keys) // columns)
    fig = Figure(figsize=(5.3 * columns, 3.2 * rows), layout=layout)
    for place, key in enumerate(keys, start=1):
        _draw_setting(fig.add_subplot(rows, columns, place), runs, key)
    return fig


def _draw_setting(ax: Axes, runs: Sequence[Run], key: str) -> None:
    values: list[Any] = [run.values.get(key) for run in runs]
    distributions = " ".join(name for run in runs for name in run.search.get(key, ()))
    is_numeric = all(map(is_number, values)) and "choice" not in distributions
    names = list(dict.fromkeys(sorted(map(setting_text, values), key=by_size)))
    x = values if is_numeric else [names.index(setting_text(value)) for value in values]
    for stopped, (label, colour, marker) in enumerate(_LOOKS):
        points: list[Any] = [(at, run.accuracy) for at, run in zip(x, runs, strict=True) if _is_stopped(run) == stopped]
        ax.plot([at for at, _ in points], [y for _, y in points], marker, color=colour, markersize=5, label=label)
    ax.margins(0.08)
    if not is_numeric:
        turned: Any = {"rotation": 20, "ha": "right"} if len("".join(names)) > 30 else {}
        ax.set_xticks(range(len(names)), names, **turned)
    elif "log" in distributions and min(values) > 0:  # a grid beside the search may contain 0
        log_scale(ax.xaxis)
    elif len(set(x)) <= 6 and all(isinstance(value, int) for value in values):
        ax.set_xticks(sorted(set(x)))
    ax.set(xlabel=symbol(key), ylabel="Validation accuracy (%)")
    ax.grid(True, alpha=0.4)


def _progress_figure(runs: Sequence[Run]) -> Figure:
    fig = Figure(figsize=(5.3, 3.2))
    ax = fig.subplots()
    epochs = [value for run in runs if run.history for value in run.history.test_acc]
    best = list(itertools.accumulate((value if math.isfinite(value) else 0.0 for value in epochs), max))
    ax.step(range(1, len(best) + 1), best, where="post", color=_COLOUR)
    ax.set(xlabel="Epochs spent", ylabel="Best validation accuracy (%)")
    ax.grid(True, alpha=0.4)
    return fig
