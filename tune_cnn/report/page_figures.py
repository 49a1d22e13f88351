"""Figures of the HTML page: those of `figure_files`, and accuracy against cost, with each panel as inline SVG."""

import colorsys
import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from tune_cnn.plot import log_scale, own_style
from tune_cnn.report.figure_files import draw_row, level_colour
from tune_cnn.report.figure_rows import figure_rows
from tune_cnn.report.grids import Cell, Grid, Row
from tune_cnn.report.runs import Run


class PageFigure(NamedTuple):
    """A figure of the page."""

    title: str
    key: list[tuple[str, str, bool]]  # name, colour, and whether the line is dashed, for each curve
    panels: list[Markup]  # SVG, side by side, or stacked on a narrow page


def curve_figures(runs: Sequence[Run]) -> list[PageFigure]:
    """Draw learning curves as `write_figures` does, but with a key in place of the legend."""
    figures = []
    for row in figure_rows([(name, run) for run in runs if run.history for name in run.names]):
        with own_style():
            fig = Figure(figsize=(10.6, 6.4))
            draw_row(fig, row)
            lines: Any = zip(*fig.axes[-1].get_legend_handles_labels(), strict=True)
            key = [(name, _on_both(to_hex(line.get_color())), line.get_linestyle() != "-") for line, name in lines]
            fig.legends.clear()
            figures.append(page_figure(row.title, key, fig, f"{row.title}. {'; '.join(name for name, _, _ in key)}"))
    return figures


def cost_figure(grid: Grid) -> PageFigure | None:
    """Draw accuracy against cost for the cells that learned; points are labelled with K, lines join cells of one L."""
    cells = [cell for cell in grid.cells if cell.verdict == "learned"]
    durations_s = [cell.mean_of("duration_s") or 0 for cell in cells]
    longest = max(durations_s, default=0)
    unit, name = (1, "s") if longest < 180 else (60, "min") if longest < 3 * 3600 else (3600, "h")
    measures: dict[str, Sequence[float | None]] = {
        "parameters": [cell.mean_of("parameters") for cell in cells],
        f"training time ({name})": [duration_s / unit for duration_s in durations_s],
    }
    kept = {title: {c: cost for c, cost in zip(cells, costs, strict=True) if cost} for title, costs in measures.items()}
    kept = {title: costs for title, costs in kept.items() if len(set(costs.values())) > 1}
    if not kept or not grid.axes:
        return None
    rows = [row for row in grid.rows(grid.axes[0]) if not set(row.cells).isdisjoint(cells)]
    colours = [to_hex(level_colour(grid.axes[-1], row.cells[0].level(grid.axes[-1]), n)) for n, row in enumerate(rows)]
    key = [(row.fixed, _on_both(colour), False) for row, colour in zip(rows, colours, strict=True) if row.fixed]
    with own_style():
        fig = Figure(figsize=(5.3 * len(kept), 3.2))
        for ax, (title, costs) in zip(fig.subplots(1, len(kept), squeeze=False)[0], kept.items(), strict=True):
            _draw_costs(ax, title, costs, list(zip(rows, colours, strict=True)))
        title = f"Accuracy of the networks that learned, against cost; points are labelled with {grid.axes[0]}"
        return page_figure(title, key, fig, "Accuracy against cost")


def _draw_costs(ax: Axes, title: str, costs: dict[Cell, float], rows: Sequence[tuple[Row, str]]) -> None:
    for row, colour in rows:
        cells = sorted((cell for cell in row.cells if cell in costs), key=lambda cell: costs[cell])
        means = [cell.accuracy for cell in cells if cell.accuracy]
        x, y = [costs[cell] for cell in cells], [mean.value for mean in means]
        margins = [mean.margin or 0 for mean in means]
        ax.errorbar(x, y, margins, color=colour, marker="o", elinewidth=1)
    ax.margins(0.12)
    if max(costs.values()) > 4 * min(costs.values()):
        log_scale(ax.xaxis)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(EngFormatter())
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, 0), min(high, 100))  # the interval over two seeds may exceed 0 to 100
    placed: list[Any] = []  # labelled points, in pixels
    for cell, cost in costs.items():
        point = (cost, cell.accuracy.value if cell.accuracy else 0)
        here = ax.transData.transform(point)
        if all(abs(here[0] - x) > 34 or abs(here[1] - y) > 15 for x, y in placed):  # where there is room
            placed.append(here)
            ax.annotate(cell.level(cell.axes[0]), point, (4, 4), textcoords="offset points", fontsize="small")
    ax.set(xlabel=title, ylabel="Validation accuracy (%)")
    ax.grid(True, alpha=0.4)


def page_figure(title: str, key: list[tuple[str, str, bool]], fig: Figure, description: str) -> PageFigure:
    """Save each axes of a figure as an SVG without background, readable on a light and on a dark page."""
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
        svg = re.sub(r' id="[a-zA-Z.]+(?:2d)?_\d+"', "", svg)  # ids, which the next panel would repeat
        svg = re.sub(r' d="[^"]+"', lambda path: re.sub(r"(\.\d)\d+|\n", r"\1", path[0]), svg)  # one decimal is enough
        svg = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", lambda hit: f"{hit[0]}; {hit[1]}: {_on_both(hit[2])}", svg)
        view = head.partition('viewBox="')[2].partition('"')[0]
        label = escape(f"{ax.get_title() or ax.get_xlabel()}. {description}")
        panels.append(Markup(f'<svg viewBox="{view}" role="img" aria-label="{label}"><g>{svg.strip()}'))
    return PageFigure(title, key, panels)


def _on_both(colour: str) -> str:
    """A CSS colour that is unchanged on a light page and lighter on a dark one."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    dark = to_hex(colorsys.hls_to_rgb(hue, min(max(lightness, 1 - lightness, 0.6), 0.9), saturation))
    return f"light-dark({colour}, {dark})"
