"""Accuracy against what a network costs: its parameters, the work of its training, and the time that took."""

from collections.abc import Callable
from statistics import fmean
from typing import NamedTuple

from tune_cnn.report.cells import Cell, Grid
from tune_cnn.report.charts import Figure, colour_of
from tune_cnn.report.phrases import percent
from tune_cnn.report.svg import Chart, Line, Scale

_STRIP = 34  # height of the strip below the axis in which the cells stand that did not learn
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


# Where a point's number may stand: above it, below it, or beside it, first near and then further away.
_AROUND = (
    (0, -12),
    (0, 13),
    (15, -9),
    (-15, -9),
    (15, 10),
    (-15, 10),
    (19, 0),
    (-19, 0),
    (0, -23),
    (20, -20),
    (-20, -20),
)


class _Box(NamedTuple):
    """A rectangle that is taken, by a point or by a number."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(cls, text: str, x: float, y: float) -> "_Box":
        """That of a text around a position."""
        half = 3.6 * len(text) + 1
        return cls(x - half, y - 6, x + half, y + 6)

    def overlaps(self, other: "_Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


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
        chart.dot(x, y, colour_of("L", cell), hollow=mean is None, name=f"{cell.label}: {percent(cell.accuracy)}")
        points.append((x, y))
    taken = [_Box(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    for cell, (x, y) in zip(costs, points, strict=True):
        mean, name = learned.get(cell), cell.k if named_by == "K" else str(cell.depth)
        beside = mean is not None and mean.margin is not None  # above and below is its interval
        for dx, dy in _AROUND[2:] if beside else _AROUND:
            box = _Box.of(name, x + dx, y + dy)
            if box.bottom < 236 and not any(map(box.overlaps, taken)):
                taken.append(box)
                chart.text(x + dx, y + dy + 4, name, "middle", "v")
                break  # a point without room for its number keeps its name, which a pointer shows
    return chart.svg(f"Accuracy against {title}. " + "; ".join(f"{c.label}: {percent(m)}" for c, m in learned.items()))


def _cost_scale(lowest: float, highest: float) -> Scale:
    """Logarithmic if the costs differ by more than a factor of 4."""
    if highest > 4 * lowest:
        return Scale(lowest / 1.3, highest * 1.3, 44, 380, log=True)
    pad = 0.15 * (highest - lowest) or 0.5 * highest
    return Scale(lowest - pad, highest + pad, 44, 380)
