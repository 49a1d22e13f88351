"""The report as one HTML page that needs nothing else: style and charts stand in it, scripts it has none."""

import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from tune_cnn.report.answers import answers, headline
from tune_cnn.report.cells import Cell, Grid
from tune_cnn.report.charts import Figure, curve_figures
from tune_cnn.report.confusions import confusions
from tune_cnn.report.costs import cost_figure
from tune_cnn.report.facts import conditions, notes, single_seed_note
from tune_cnn.report.phrases import grid_names
from tune_cnn.report.table import HEADS, WORDS, Square, map_rows, table

_LEFT = ' class="w"'  # how words stand in a column, where numbers stand on the right
_LOW, _HIGH = (222, 235, 247), (8, 69, 148)  # of the map: the lowest accuracy that learned, and the highest


def page(title: str, grids: Sequence[Grid]) -> str:
    """The page of a report.

    Args:
        title: The sweep's name.
        grids: What `load_grids` found; at least one.
    """
    names = grid_names(grids)
    body = [
        f"<h1>Report: {escape(title)}</h1>",
        f'<p class="lead">{_text(headline(grids))}</p>',
        *(f"<p>{_text(note)}</p>" for note in single_seed_note(grids)),
    ]
    learned = [
        cell.accuracy.value for grid in grids for cell in grid.cells if cell.state == "learned" and cell.accuracy
    ]
    for name, grid in zip(names, grids, strict=True):
        suffix = f": {name}" if len(grids) > 1 else ""
        body += [_heading("Map", suffix), _map(grid, learned), _heading("Answers", suffix), *_answers(grid, grids)]
    body += ["<h2>Results</h2>", _table(grids, names)]
    for name, grid in zip(names, grids, strict=True):
        suffix = f": {name}" if len(grids) > 1 else ""
        if lines := confusions(grid):
            body += [_heading("Confusions on the test set", suffix), _list(lines)]
        body += [_heading("Learning curves", suffix), *map(_figure, curve_figures(grid))]
        if (figure := cost_figure(grid)) is not None:
            body += [_heading("Cost", suffix), _figure(figure)]
    body += ["<h2>Conditions</h2>", _conditions(grids), "<h2>How to read it</h2>", _list(notes(grids))]
    style = files("tune_cnn.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}: depth and width</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _heading(title: str, suffix: str) -> str:
    return f"<h2>{escape(title + suffix)}</h2>"


def _text(sentence: str) -> str:
    """Escaped, with numbers that keep their units and symbols on one line."""
    return re.sub(
        r"(?<=\d) (?=%|±)|(?<=±) (?=\d)|(?<=\b[KL]) (?==)|(?<=\b[KL] =) (?=\d)", "\N{NO-BREAK SPACE}", escape(sentence)
    )


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _answers(grid: Grid, grids: Sequence[Grid]) -> list[str]:
    found = answers(grid, [other for other in grids if other is not grid])
    return [f"<h3>{escape(answer.question)}</h3>{_list(answer.lines)}" for answer in found]


def _map(grid: Grid, learned: Sequence[float]) -> str:
    """The map of a grid; `learned` are the accuracies, of all grids, over which the colours range."""
    low, high = (min(learned), max(learned)) if learned else (0.0, 0.0)
    low = max(min(low, high - 5), 0)  # half a point is no reason for another colour
    heads = "".join(f'<th scope="col">K = {escape(k)}</th>' for k in grid.by_width)
    rows = [
        f'<tr><th scope="row">L = {depth}</th>{"".join(_field(square, low, high) for square in squares)}</tr>'
        for depth, squares in map_rows(grid)
    ]
    gradient = f"linear-gradient(to right, {_css(_LOW)}, {_css(_HIGH)})"
    scale = (
        f'<p class="soft">Best validation accuracy in %. <span class="range">{low:.0f}'
        f'<span class="scale" style="background: {gradient}"></span>{high:.0f}</span></p>'
    )
    table = f'<table class="map"><thead><tr><th></th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll">{table}</div>{scale if learned else ""}'


def _field(square: Square, low: float, high: float) -> str:
    cell = square.cell
    remark = f"<small>{escape(square.remark)}</small>" if square.remark else ""
    if cell is None or not cell.finished:
        return f'<td class="none">{remark}</td>'
    content = f"<b>{square.accuracy}</b>{remark}"
    if cell.state != "learned" or cell.accuracy is None:
        return f'<td class="cool">{content}</td>'
    share = (cell.accuracy.value - low) / (high - low)
    colour = tuple(round(a + share * (b - a)) for a, b in zip(_LOW, _HIGH, strict=True))
    ink = "#ffffff" if share > 0.45 else "#10202f"
    return f'<td style="background: {_css(colour)}; color: {ink}">{content}</td>'


def _css(colour: tuple[int, ...]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


def _table(grids: Sequence[Grid], names: Sequence[str]) -> str:
    several = len(grids) > 1
    heads = [(head, "w" if head in WORDS else "") for head in HEADS]
    if several:
        heads.insert(1, ("variant", "w"))
    rows = []
    for name, grid in zip(names, grids, strict=True):
        cells = [cell for row in grid.by_width.values() for cell in row]
        for cell, texts in zip(cells, table(grid), strict=True):
            fields = [
                f"<td{_LEFT if head in WORDS else ''}>{escape(text)}</td>"
                for head, text in zip(HEADS, texts, strict=True)
            ]
            fields[-1] = f'<td class="w verdict {_kind(cell)}">{escape(texts[-1])}</td>'
            if several:
                fields.insert(1, f'<td class="w">{escape(name)}</td>')
            rows.append(f"<tr>{''.join(fields)}</tr>")
    head = "".join(f'<th scope="col"{f" class={kind}" if kind else ""}>{escape(text)}</th>' for text, kind in heads)
    return (
        f'<div class="scroll"><table class="results"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _kind(cell: Cell) -> str:
    return {"learned": "learned", "did not learn": "flat"}.get(cell.verdict, "odd")


def _figure(figure: Figure) -> str:
    key = "".join(f'<span style="--c:{colour}">{escape(name)}</span>' for name, colour in figure.key)
    return (
        f"<figure><figcaption>{escape(figure.title)}</figcaption>"
        + (f'<div class="key">{key}</div>' if key else "")
        + (
            f'<div class="charts{" small" if figure.small else ""}">{"".join(figure.charts)}</div>'
            if figure.charts
            else ""
        )
        + "</figure>"
    )


def _conditions(grids: Sequence[Grid]) -> str:
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in conditions(grids))
    return f'<table class="settings"><tbody>{rows}</tbody></table>'
