"""The figures of the page: those of `figure_files`, and accuracy against cost; each panel is an SVG within the page."""

import colorsys
import io
import re
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from tune_cnn.plot import own_style
from tune_cnn.report.figure_files import Curve, draw_row, parameter_colour
from tune_cnn.report.figure_rows import figure_rows
from tune_cnn.report.grids import Cell, Grid, Row
from tune_cnn.report.runs import Run
from tune_cnn.report.wording import levels, percent
from tune_cnn.train_results import chance


class PageFigure(NamedTuple):
    """A title and its panels."""

    title: str
    key: list[tuple[str, str, bool]]  # name, colour, and whether the lines are dashed, of each curve
    panels: list[Markup]  # SVG; they stand side by side, or on a narrow page one below the other


def curve_figures(grid: Grid) -> Iterator[PageFigure]:
    """Learning curves: a figure for each K over L, and for each L over K; of a lone cell its own.

    Rows in which nothing learned are a title only, unless there are no others.
    """
    rows = [row for varies in ("L", "K") for row in grid.rows(varies) if len(row.cells) > 1]
    rows = rows or [Row(cell.label, "L", [cell]) for cell in grid.cells]
    for row in rows:
        title = f"{row.fixed}, {row.varies} varies" if len(row.cells) > 1 else row.fixed
        cells = [cell for cell in row.cells if any(run.history for run in cell.runs)]
        if cells and all(cell.state == "did not learn" for cell in cells) and any(other.learned for other in rows):
            yield PageFigure(f"{title}: nothing learned", [], [])
        elif cells:
            yield _curve_figure(title, row, cells)


def _curve_figure(title: str, row: Row, cells: Sequence[Cell]) -> PageFigure:
    colours = [parameter_colour(row.varies, cell.level(row.varies)) for cell in cells]
    key = [
        (_described(row, cell), _on_both(colour), cell.state == "did not learn")
        for cell, colour in zip(cells, colours, strict=True)
    ]
    classes = max(cells[0].settings.data.classes, 2)
    if any(dashed for _, _, dashed in key):
        key.append((f"guessing: {chance(classes):.3g} %", _on_both("#666666"), True))
    curves = [
        Curve(levels(row.varies, [cell]), colour, run.history, classes, run.verdict)
        for cell, colour in zip(cells, colours, strict=True)
        for run in cell.runs
        if run.history
    ]
    return _drawn(title, curves, key)


def named_figures(runs: Sequence[Run]) -> list[PageFigure]:
    """Learning curves as `write_figures` draws them, of trainings that are no grid of K and L."""
    histories = [(run, run.history) for run in runs if run.history]
    rows = figure_rows([(run.names[0], run.values, run.facts) for run, _ in histories])
    return [
        _drawn(row.title, [Curve.of(row, i, histories[i][1], dict(histories[i][0].facts)) for i in row.labels])
        for row in rows
    ]


def _drawn(title: str, curves: list[Curve], key: list[tuple[str, str, bool]] | None = None) -> PageFigure:
    """A row's figure, whose key replaces its legend, or has the same entries."""
    with own_style():
        fig = Figure(figsize=(10.6, 6.4))
        draw_row(fig, curves)
        lines: Any = zip(*fig.axes[-1].get_legend_handles_labels(), strict=True)
        key = key or [(name, _on_both(to_hex(line.get_color())), line.get_linestyle() != "-") for line, name in lines]
        fig.legends.clear()
        return page_figure(title, key, fig, f"{title}. {'; '.join(name for name, _, _ in key)}")


def _described(row: Row, cell: Cell) -> str:
    name = f"{levels(row.varies, [cell])}: " if len(row.cells) > 1 else ""
    remark = "" if cell.verdict == "learned" else f", {cell.verdict}"
    return f"{name}{percent(cell.accuracy)}{remark}" if cell.accuracy else f"{name}{cell.verdict}"


def cost_figure(grid: Grid) -> PageFigure | None:
    """Accuracy of the cells that learned against what they cost; lines join the cells of one L, points bear their K."""
    cells = [cell for cell in grid.cells if cell.state == "learned"]
    durations_s = [cell.mean_of("duration_s") or 0 for cell in cells]
    longest = max(durations_s, default=0)
    unit, name = (1, "s") if longest < 180 else (60, "min") if longest < 3 * 3600 else (3600, "h")
    measures: dict[str, Sequence[float | None]] = {
        "parameters": [cell.mean_of("parameters") for cell in cells],
        "multiply-adds × images seen in training": [fmean(cell.values("work") or [0]) for cell in cells],
        f"training time ({name})": [duration_s / unit for duration_s in durations_s],
    }
    told = {title: {c: cost for c, cost in zip(cells, costs, strict=True) if cost} for title, costs in measures.items()}
    told = {title: costs for title, costs in told.items() if len(costs) > 1}
    if not told:
        return None
    rows = [row for row in grid.rows("K") if row.learned]
    key = [(row.fixed, _on_both(parameter_colour("L", row.cells[0].level("L"))), False) for row in rows]
    with own_style():
        fig = Figure(figsize=(5.3 * len(told), 3.2))
        for ax, (title, costs) in zip(fig.subplots(1, len(told), squeeze=False)[0], told.items(), strict=True):
            _draw_costs(ax, title, costs, rows)
        title = "Accuracy of the networks that learned, against cost; points bear their K"
        return page_figure(title, key, fig, "Accuracy against cost")


def _draw_costs(ax: Axes, title: str, costs: dict[Cell, float], rows: Sequence[Row]) -> None:
    for row in rows:
        cells = sorted((cell for cell in row.learned if cell in costs), key=lambda cell: costs[cell])
        means = [cell.accuracy for cell in cells if cell.accuracy]
        x, y = [costs[cell] for cell in cells], [mean.value for mean in means]
        margins = [mean.margin or 0 for mean in means]
        colour = parameter_colour("L", row.cells[0].level("L"))
        ax.errorbar(x, y, margins, color=colour, marker="o", elinewidth=1)
    if max(costs.values()) > 4 * min(costs.values()):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(EngFormatter())
    ax.margins(0.12)
    ax.autoscale_view()
    placed: list[Any] = []  # in pixels
    for cell, cost in costs.items():
        point = (cost, cell.accuracy.value if cell.accuracy else 0)
        here = ax.transData.transform(point)
        if all(abs(here[0] - x) > 34 or abs(here[1] - y) > 15 for x, y in placed):  # where there is room
            placed.append(here)
            ax.annotate(cell.k, point, (4, 4), textcoords="offset points", fontsize="small")
    ax.set(xlabel=title, ylabel="Validation accuracy (%)")
    ax.grid(True, alpha=0.4)


def page_figure(title: str, key: list[tuple[str, str, bool]], fig: Figure, description: str) -> PageFigure:
    """Each axes of a figure as an SVG of its own, without the figure's paper, readable on light and on dark paper."""
    fig.set_layout_engine(None)
    fig.subplots_adjust(hspace=0.5, wspace=0.3)
    panels = []
    for ax in fig.axes:
        for other in fig.axes:
            other.set_visible(other is ax)
        tight = ax.get_tightbbox()
        assert tight is not None
        content = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            box = tight.padded(4).transformed(fig.dpi_scale_trans.inverted())  # in inches
            fig.savefig(content, format="svg", transparent=True, bbox_inches=box)
        head, _, svg = content.getvalue().partition('<g id="figure_1">')
        svg = re.sub(r' id="[a-zA-Z.]+(?:2d)?_\d+"', "", svg)  # which the next panel has too
        svg = re.sub(r' d="[^"]+"', lambda path: re.sub(r"(\.\d)\d+|\n", r"\1", path[0]), svg)  # a tenth is enough
        svg = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", lambda hit: f"{hit[0]}; {hit[1]}: {_on_both(hit[2])}", svg)
        view = head.partition('viewBox="')[2].partition('"')[0]
        label = escape(f"{ax.get_title() or ax.get_xlabel()}. {description}")
        panels.append(Markup(f'<svg viewBox="{view}" role="img" aria-label="{label}"><g>{svg.strip()}'))
    return PageFigure(title, key, panels)


def _on_both(colour: str) -> str:
    """A colour as it is on light paper, and lighter on dark paper."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    dark = to_hex(colorsys.hls_to_rgb(hue, min(max(lightness, 1 - lightness, 0.6), 0.9), saturation))
    return f"light-dark({colour}, {dark})"
