"""Tables of a report: all experiments as a pandas frame (also the CSV), and the results and the map as texts."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from tune_cnn.report.grids import Cell, Grid
from tune_cnn.report.wording import grid_names, number
from tune_cnn.texts import by_size, duration

LEFT_ALIGNED = {"experiment", "variant", "expected", "verdict", "ended"}  # columns of words


def experiments_frame(grids: Sequence[Grid]) -> pd.DataFrame:
    """One row per experiment: its name and verdict, every setting, its results, and the facts about its trial.

    Accuracies are in percent, times in seconds. Settings of other programs are columns too; facts that are lists are
    left out.
    """
    rows = []
    for run in [run for grid in grids for run in grid.runs]:
        facts = pd.json_normalize(dict(run.facts)).iloc[0].to_dict() if run.facts else {}
        history, best = run.history, run.best_epoch
        results = {
            "epochs_run": run.epochs if history else None,
            "best_epoch": best,
            "best_validation_accuracy": run.accuracy,
            "training_accuracy_at_best": history.train_acc[best - 1] if history and best else None,
            "failure": run.failure,
        }
        row = {"verdict": run.verdict, **run.values, **results}
        row |= {key: value for key, value in facts.items() if key not in row and not isinstance(value, list)}
        rows += [{"experiment": name, **row} for name in run.names]
    return pd.DataFrame(rows).convert_dtypes()


def results_table(grids: Sequence[Grid]) -> pd.DataFrame:
    """One row per cell, as texts, narrow networks first; with several grids, a column `variant` distinguishes them."""
    lines = []
    for name, grid in zip(grid_names(grids), grids, strict=True):
        variant = {"variant": name} if len(grids) > 1 else {}
        lines += [results_line(c, {**variant, **{axis: c.level(axis) for axis in c.axes}}) for c in grid.cells]
    return pd.DataFrame(lines)


def results_line(cell: Cell, settings: Mapping[str, str]) -> dict[str, str]:
    """A row of a table: names, the given settings, and the results."""
    parameters, multiply_adds, seconds = map(cell.mean_of, ("parameters", "multiply_adds", "duration_s"))
    return {
        "experiment": cell.names,
        **{"most epochs" if key == "epochs" else key: value for key, value in settings.items()},
        "parameters": "–" if parameters is None else f"{parameters:,.0f}",
        "multiply-adds": "–" if multiply_adds is None else f"{multiply_adds / 1e6:,.1f} M",
        "epochs": _span([run.epochs for run in cell.runs if run.history]),
        "best val. acc. (%)": number(cell.accuracy, 2),
        "at epoch": _span([run.best_epoch for run in cell.runs if run.best_epoch]),
        "test acc. (%)": number(cell.test_accuracy, 2),
        "time": "–" if seconds is None else duration(seconds),
        "ended": ", ".join(dict.fromkeys(run.ended for run in cell.runs if run.ended)) or "–",
        "expected": cell.expected,
        "verdict": cell.verdict,
    }


def _span(values: Sequence[int]) -> str:
    if not values:
        return "–"
    return str(values[0]) if min(values) == max(values) else f"{min(values)}–{max(values)}"


class Square(NamedTuple):
    """One field of the map."""

    accuracy: str  # `68.2`, with its interval if there are several runs; empty if there is no accuracy
    remark: str  # the verdict unless all runs learned
    shade: float | None = None  # 0 to 100 within `accuracy_range`; None if it did not learn
    is_finished: bool = False  # whether a run has final results


def accuracy_range(grids: Sequence[Grid]) -> tuple[float, float] | None:
    """The accuracies at both ends of the colour scale of all maps; None if nothing learned."""
    learned = [c.accuracy.value for grid in grids for c in grid.cells if c.state == "learned" and c.accuracy]
    if not learned:
        return None
    return max(min(min(learned), max(learned) - 5), 0), max(learned)  # half a point must not change the colour


def map_rows(grid: Grid, colours: tuple[float, float] | None) -> tuple[list[str], list[tuple[str, list[Square]]]]:
    """The map of a grid: column heads (`K = 8`), and rows of a head (`L = 2`) and its fields; empty without axes."""
    if not grid.axes:
        return [], []
    across, rows = grid.axes[0], []
    levels = sorted({cell.level(across) for cell in grid.cells}, key=by_size)
    for row in grid.rows(across):
        found = {cell.level(across): cell for cell in row.cells}
        rows.append((row.fixed, [_square(found.get(level), colours) for level in levels]))
    return [f"{across} = {level}" for level in levels], rows


def _square(cell: Cell | None, colours: tuple[float, float] | None) -> Square:
    if cell is None:
        return Square("", "not run")
    accuracy = number(cell.accuracy) if cell.accuracy else ""
    remark = "" if cell.verdict == "learned" else cell.verdict
    if cell.state != "learned" or colours is None or cell.accuracy is None:
        return Square(accuracy, remark, None, bool(cell.finished))
    low, high = colours
    return Square(accuracy, remark, round(100 * (cell.accuracy.value - low) / (high - low), 1), True)
