"""Which classes the networks take for which, on the test set."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tune_cnn.report.cells import Cell, Grid
from tune_cnn.report.phrases import listed
from tune_cnn.report.runs import Run

_NAMED = 3  # pairs of classes for each network
_LEAST = 5.0  # percent of a class that a pair must have to be named


def confusions(grid: Grid) -> list[str]:
    """One line for each network that learned and confuses something; narrow ones first.

    Example:
        `K = 16, L = 4: takes 48 % of circle for square, 41 % of ring for frame and 22 % of frame for ring.`
    """
    pairs = [(cell, _pairs(cell)) for cell in grid.cells]
    return [f"{cell.label}: takes {listed(found)}." for cell, found in pairs if found]


def _pairs(cell: Cell) -> list[str]:
    """What is confused most often, by its share of the class, over all runs of a cell that learned."""
    found = {run: matrix for run in cell.finished if run.verdict == "learned" and (matrix := _matrix(run)) is not None}
    if not found:
        return []
    (names, *others), (counts, *more) = ([run.fact("class_names") for run in found], found.values())
    if any(other != names for other in others):
        return []
    counts = sum(more, start=counts)
    percent = 100 * counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    np.fill_diagonal(percent, 0)
    order = np.argsort(-percent, axis=None, kind="stable")[:_NAMED]
    places = [divmod(int(place), len(percent)) for place in order if percent.flat[place] >= _LEAST]
    return [f"{percent[i, j]:.0f} % of {names[i]} for {names[j]}" for i, j in places]


def _matrix(run: Run) -> NDArray[np.float64] | None:
    """Test images by true class and by predicted class (classes, classes), if the file tells."""
    rows, names = run.fact("confusion"), run.fact("class_names")
    if not (_is_list(rows) and _is_list(names) and len(rows) == len(names)):
        return None
    if not all(_is_list(row) and len(row) == len(names) for row in rows):
        return None
    if not all(isinstance(count, int) and 0 <= count < 2**53 for row in rows for count in row):
        return None
    return np.array(rows, dtype=np.float64)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
