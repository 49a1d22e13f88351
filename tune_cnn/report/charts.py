"""Which charts a report has: the learning curves of each row, and accuracy against what a network costs."""

import math
from collections.abc import Callable, Sequence
from itertools import cycle
from statistics import fmean
from typing import NamedTuple

from matplotlib.colors import to_hex

from tune_cnn.report.cells import Cell, Grid
from tune_cnn.report.figures import parameter_colour
from tune_cnn.report.phrases import percent
from tune_cnn.report.runs import Run
from tune_cnn.report.svg import Chart, Line, Scale
from tune_cnn.train_results import chance

_MANY = 6  # more curves than this are also drawn one by one


_Values = Callable[[Run], Sequence[float]]  # of each epoch


class Figure(NamedTuple):
    """A title and its charts.

    Attributes:
        title: What they show.
        charts: SVG.
        small: Whether they are many small ones.
        key: Names and colours of what they do not name themselves.
    """

    title: str
    charts: list[str]
    small: bool = False
    key: Sequence[tuple[str, str]] = ()


class _Curves(NamedTuple):
    """The runs of one cell as they are drawn; every other cell of a row has `d2` for its dashes."""

    name: str
    colour: str
    cell: Cell
    dash: str = "d"

    def lines(self, values: _Values, grey: bool = False) -> list[Line]:
        """A line for each run; of several, faint ones and their mean, as far as all of them go."""
        curves = [values(run) for run in self.cell.finished]
        colour, dash = "" if grey else self.colour, "" if self.cell.state == "learned" else self.dash
        shared = [fmean(several) for several in zip(*curves, strict=False)]
        mean = Line(self.name, colour, _points(shared), dash)
        return [*(Line("", colour, _points(curve), "f") for curve in curves), mean] if len(curves) > 1 else [mean]


def curve_figures(grid: Grid) -> list[Figure]:
    """Learning curves: a figure for each K over L, and for each L over K; of a lone cell its own.

    Rows in which nothing learned are a title only, unless there are no others.
    """
    rows = [(f"K = {k}, L varies", _row("L", cells)) for k, cells in grid.by_width.items() if len(cells) > 1]
    rows += [(f"L = {depth}, K varies", _row("K", cells)) for depth, cells in grid.by_depth.items() if len(cells) > 1]
    if not rows:
        rows = [(cell.label, [curves._replace(name="") for curves in _row("L", [cell])]) for cell in grid.cells]
    rows = [(title, row) for title, row in rows if row]
    some_learned = any(curves.cell.state == "learned" for _, row in rows for curves in row)
    figures = []
    for title, row in rows:
        if some_learned and all(curves.cell.state == "did not learn" for curves in row):
            figures.append(Figure(f"{title}: nothing learned, all curves stay at guessing", []))
        else:
            figures += _row_figures(title, row)
    return figures


def _row(parameter: str, cells: Sequence[Cell]) -> list[_Curves]:
    return [
        _Curves(f"{parameter} = {cell.k if parameter == 'K' else cell.depth}", colour_of(parameter, cell), cell, dash)
        for cell, dash in zip([cell for cell in cells if cell.finished], cycle(("d", "d2")), strict=False)
    ]


def colour_of(parameter: str, cell: Cell) -> str:
    """The colour that `plot` gives to the cell's K or L."""
    return to_hex(parameter_colour(parameter, sum(cell.widths) if parameter == "K" else cell.depth))


def _accuracies(run: Run) -> Sequence[float]:
    return run.history.test_acc if run.history else []


def _losses(run: Run) -> Sequence[float]:
    return [loss if loss > 0 else math.nan for loss in run.epoch_losses()]  # 0 has no logarithm


def _points(values: Sequence[float]) -> list[tuple[float, float]]:
    return [(float(epoch), value) for epoch, value in enumerate(values, start=1)]


def _row_figures(title: str, row: Sequence[_Curves]) -> list[Figure]:
    classes = row[0].cell.settings.data.classes
    height = 280 if len(row) <= _MANY else 400
    charts = []
    for values, name, guessing, level in (
        (_accuracies, "validation accuracy (%)", chance(classes), f"guessing, {chance(classes):.3g} %"),
        (_losses, "training loss (nats)", math.log(classes), f"guessing, ln {classes}"),
    ):
        scale = _scale(row, values, guessing, height)
        chart = Chart(_epochs(row, 44, 362), scale, "epoch", name, height=height)
        chart.frame(_whole)
        if scale.low < guessing < scale.high:
            chart.level(guessing, level)
        lines = [line for curves in row for line in curves.lines(values)]
        for line in lines:
            chart.line(line)
        chart.names(lines)
        best = ", ".join(f"{curves.name or curves.cell.label}: {percent(curves.cell.accuracy)}" for curves in row)
        charts.append(chart.svg(f"{title}: {name} by epoch. Best validation accuracies: {best}"))
    figures = [Figure(title, charts)]
    if len(row) > _MANY:
        scale = _scale(row, _accuracies, chance(classes), 172)
        figures.append(Figure(f"{title}, one by one", [_alone(row, curves, scale) for curves in row], small=True))
    return figures


def _scale(row: Sequence[_Curves], values: _Values, guessing: float, height: float) -> Scale:
    """For accuracies or losses; if all learned, what guessing gives need not be in view."""
    found = [value for curves in row for run in curves.cell.finished for value in values(run) if math.isfinite(value)]
    if any(curves.cell.state != "learned" for curves in row):
        found.append(guessing)
    low, high = min(found, default=guessing), max(found, default=guessing)
    if values is _losses:
        return Scale(low / 1.05, high * 1.15, height - 44, 30, log=True)
    low = 0 if low <= 1.5 * guessing else 10 * math.floor(low / 10)
    return Scale(low, max(min(low + 1.05 * (high - low), 100), low + 2 * guessing), height - 44, 30)


def _epochs(row: Sequence[_Curves], start: float, end: float) -> Scale:
    return Scale(1, max(2, *(len(_accuracies(run)) for curves in row for run in curves.cell.finished)), start, end)


def _alone(row: Sequence[_Curves], chosen: _Curves, scale: Scale) -> str:
    """One cell's curves before the grey of all others."""
    name = f"{chosen.name}: {percent(chosen.cell.accuracy)}"
    chart = Chart(_epochs(row, 34, 222), scale, "", name, width=230, height=150)
    chart.frame(_whole)
    for curves in row:
        for line in curves.lines(_accuracies, grey=True):
            chart.line(line)
    for line in chosen.lines(_accuracies):
        chart.line(line)
    return chart.svg(f"Validation accuracy by epoch, {name}, before the others")


def _whole(value: float) -> str:
    return f"{value:g}" if value == round(value) else ""
