"""The assignment's two questions, answered in sentences made from the numbers of a grid."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from tune_cnn.report.cells import Cell, Grid
from tune_cnn.report.interplay import interplay
from tune_cnn.report.learnability import not_learned, tried
from tune_cnn.report.noise import difference
from tune_cnn.report.phrases import merged, percent, places
from tune_cnn.report.rows import DEPTH, WIDTH, Axis, compared, ranked, ranking, trend
from tune_cnn.report.runs import VERDICTS
from tune_cnn.texts import counted


class Answer(NamedTuple):
    """A question, and the lines that answer it, each of one or more sentences."""

    question: str
    lines: list[str]


def answers(grid: Grid, others: Sequence[Grid] = ()) -> list[Answer]:
    """Answer the assignment's questions from the cells of one grid.

    Args:
        grid: The cells.
        others: What else was tried: the cells of the same K and L in them are compared.
    """
    widths = {f"K = {k}": row for k, row in grid.by_width.items()}
    depths = {f"L = {depth}": row for depth, row in grid.by_depth.items()}
    found = [
        Answer("1.1 Which depth is best, at each width?", _best_depth(widths)),
        Answer("1.2 Which networks did not learn, and why?", not_learned(grid)),
        Answer("1.3 What helps, and what was tried?", tried(grid, others)),
        Answer("2.1 How does accuracy move with the width, at each depth?", _width(depths)),
        Answer("2.2 Does the width change what depth does?", interplay(widths, depths)),
    ]
    return [answer for answer in found if answer.lines]


def headline(grids: Sequence[Grid]) -> str:
    """How many trainings learned, and which cell is the best."""
    runs = [run for grid in grids for cell in grid.cells for run in cell.runs]
    verdicts = [run.verdict for run in runs]
    outcome = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in verdicts)
    experiments = counted(sum(len(run.names) for run in runs), "experiment")
    sentence = f"{experiments}, {counted(len(runs), 'training')}: {outcome}."
    learned = ranked([cell for grid in grids for cell in grid.cells])
    if not learned:
        return sentence
    best = learned[0]
    on_test = f", {percent(best.test_accuracy)} on the test set" if best.test_accuracy else ""
    return f"{sentence} The highest validation accuracy is {percent(best.accuracy)} ({best.label}{on_test})."


def _best_depth(widths: Mapping[str, Sequence[Cell]]) -> list[str]:
    several = {fixed: row for fixed, row in widths.items() if len(row) > 1}
    if not several:
        return ["No width was run at more than one depth, so this sweep does not tell which depth is best."]
    lines = [" ".join([*ranking(fixed, DEPTH, row), *_fit(row)]) for fixed, row in several.items()]
    return lines + _run_at_one(widths, DEPTH) + _cannot_tell(several)


def _fit(row: Sequence[Cell]) -> list[str]:
    """How the best depth fits the training images, against the next one; nothing where neither is the best."""
    if len(best_first := ranked(row)) < 2:
        return []
    first, second = best_first[:2]
    gap = difference(first.accuracies, second.accuracies)
    ours, theirs = (fmean(cell.values("training_accuracy") or [math.nan]) for cell in (first, second))
    is_best = percent(first.accuracy) != percent(second.accuracy) and not (gap and gap.is_noise)
    if not is_best or not abs(ours - theirs) >= 0.1:
        return []
    figures = f"{percent(ours)} against {percent(theirs)} at the best epochs"
    if ours > theirs:
        return [f"{DEPTH.name(first)} fits the training images better than {DEPTH.name(second)} too ({figures})."]
    return [
        f"{DEPTH.name(first)} fits the training images less closely than {DEPTH.name(second)} ({figures}), so its lead "
        f"shows on the validation images only."
    ]


def _width(depths: Mapping[str, Sequence[Cell]]) -> list[str]:
    several = {fixed: row for fixed, row in depths.items() if len(row) > 1}
    if not several:
        return ["No depth was run at more than one width, so this sweep does not tell what width does."]
    lines = [" ".join(trend(fixed, WIDTH, row)) for fixed, row in several.items()]
    return lines + _run_at_one(depths, WIDTH) + _cannot_tell(several)


def _run_at_one(rows: Mapping[str, Sequence[Cell]], axis: Axis) -> list[str]:
    """Which rows have nothing to compare."""
    alone: dict[str, list[str]] = {}
    for fixed, row in rows.items():
        if len(row) == 1:
            alone.setdefault(axis.name(*row), []).append(fixed)
    return [
        f"{merged(found)} {'was' if len(found) == 1 else 'were'} run at {place} only." for place, found in alone.items()
    ]


def _cannot_tell(rows: Mapping[str, Sequence[Cell]]) -> list[str]:
    """A line about cells whose differences were told, but cannot be held against the noise."""
    cells = [cell for row in rows.values() if len(compared(row)) > 1 for cell in compared(row)]
    single = [cell for cell in cells if len(cell.accuracies) == 1]
    if not single:
        return []
    if len(single) == len(cells):
        return ["With one seed a cell, this cannot tell whether the differences are more than the noise between seeds."]
    has = "has a single run, so its differences" if len(single) == 1 else "have a single run each, so their differences"
    return [f"{places(single)} {has} cannot be told from the noise between seeds."]
