"""Accuracy against what a network costs: its parameters, the work of its training, and the time that took."""

import math
from collections.abc import Callable
from statistics import fmean

from tune_cnn.report.cells import Cell, Grid
from tune_cnn.report.charts import Figure, colour_of
from tune_cnn.report.phrases import percent
from tune_cnn.report.svg import Chart, Line, Scale

_STRIP = 34  # height of the strip below the axis in which the cells stand that did not learn
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def cost_figure(grid: Grid) -> Figure | None:
    """Three charts in which lines join the cells of one L, and each point bears its K; None without finished cells.

    Where no K varies, the points bear their L.
    """
    time_unit, time_name = _time_unit(max((cell.mean_of("duration_s") or 0 for cell in grid.cells), default=0))
    measures: list[tuple[str, Callable[[Cell], float | None], Callable[[float], str]]] = [
        ("parameters", lambda cell: cell.mean_of("parameters"), si),
        ("multiply-adds × images seen in training", lambda cell: fmean(w) if (w := cell.values("work")) else None, si),
        (f"training time ({time_name})", lambda cell: (cell.mean_of("duration_s") or 0) / time_unit, "{:g}".format),
    ]
    named_by = "K" if len(grid.by_width) > 1 else "L"
    charts = []
    for title, measure, text in measures:
        costs = {cell: cost for cell in grid.cells if cell.accuracy and (cost := measure(cell))}
        if costs:
            charts.append(_chart(title, costs, text, named_by))
    if not charts:
        return None
    key = [(f"L = {depth}", colour_of("L", row[0])) for depth, row in grid.by_depth.items()]
    return Figure(f"Accuracy against cost; the number at a point is its {named_by}", charts, key=key)


def si(value: float) -> str:
    """`200 k`, `1.5 M`."""
    for scale, prefix in _PREFIXES:
        if value >= scale:
            return f"{value / scale:g} {prefix}"
    return f"{value:g}"


def _time_unit(seconds: float) -> tuple[float, str]:
    return (1, "s") if seconds < 180 else (60, "min") if seconds < 3 * 3600 else (3600, "h")


def _chart(title: str, costs: dict[Cell, float], text: Callable[[float], str], named_by: str) -> str:
    learned = {cell: cell.accuracy for cell in costs if cell.state == "learned" and cell.accuracy}
    strip = _STRIP if len(learned) < len(costs) else 0
    low = min((mean.value - (mean.margin or 0) for mean in learned.values()), default=0.0)
    high = max((mean.value + (mean.margin or 0) for mean in learned.values()), default=100.0)
    pad = max(0.1 * (high - low), 1.0)
    chart = Chart(
        _cost_scale(min(costs.values()), max(costs.values())),
        Scale(max(low - pad, 0), min(high + pad, 100), 236 - strip, 30),
        title,
        "best validation accuracy (%)",
    )
    chart.frame(text, below=strip)
    if strip:
        chart.text(388, 231, "did not learn", "start", "t")

    for row in Grid(tuple(learned)).by_depth.values() if learned else ():
        chart.line(Line("", colour_of("L", row[0]), sorted((costs[cell], learned[cell].value) for cell in row)))
    points: list[tuple[float, float]] = []
    for cell, cost in costs.items():
        mean = learned.get(cell)
        x, y = chart.x(cost), 227 if mean is None else chart.y(mean.value)
        if mean and mean.margin:
            ends = (max(mean.value - mean.margin, chart.y.low), min(mean.value + mean.margin, chart.y.high))
            chart.bar(x, chart.y(ends[0]), chart.y(ends[1]), colour_of("L", cell))
        chart.dot(x, y, colour_of("L", cell), hollow=mean is None)
        points.append((x, y))
    taken = list(points)
    for cell, point in zip(costs, points, strict=True):
        mean = learned.get(cell)
        place = _free_place(point, taken, beside=mean is not None and mean.margin is not None)
        taken.append(place)
        chart.text(place[0], place[1] + 4, cell.k if named_by == "K" else str(cell.depth), "middle", "v")
    return chart.svg(f"Accuracy against {title}. " + "; ".join(f"{c.label}: {percent(m)}" for c, m in learned.items()))


def _cost_scale(lowest: float, highest: float) -> Scale:
    """Logarithmic if the costs differ by more than a factor of 4."""
    if highest > 4 * lowest:
        return Scale(lowest / 1.3, highest * 1.3, 44, 380, log=True)
    pad = 0.15 * (highest - lowest) or 0.5 * highest
    return Scale(lowest - pad, highest + pad, 44, 380)


def _free_place(
    point: tuple[float, float], taken: list[tuple[float, float]], beside: bool = False
) -> tuple[float, float]:
    """Where a point's label hides no other: the first place around it that is free, or else the freest.

    Args:
        point: Its position.
        taken: The positions of all points, and of the labels so far.
        beside: Leave out the places above and below, where its interval is drawn.
    """
    sides = [(15, -9), (-15, -9), (15, 10), (-15, 10), (18, 0), (-18, 0)]
    offsets = sides if beside else [(0, -12), (0, 13), *sides]
    places = [(point[0] + dx, point[1] + dy) for dx, dy in offsets if point[1] + dy < 236]
    room = {place: min(math.dist(place, other) for other in taken) for place in places}
    return next((place for place in places if room[place] >= 11.5), max(places, key=room.__getitem__))
