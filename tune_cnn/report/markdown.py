"""The report as a Markdown file, with links to the figures."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from tune_cnn.report.answers import answers, headline
from tune_cnn.report.cells import Grid
from tune_cnn.report.confusions import confusions
from tune_cnn.report.facts import conditions, notes, single_seed_note
from tune_cnn.report.phrases import grid_names
from tune_cnn.report.table import HEADS, WORDS, Square, map_rows, table

# What Markdown gives a meaning to; an underscore between letters has none.
_SPECIAL = re.compile(r"([\\`*{}\[\]<>#|~&$!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def markdown(title: str, grids: Sequence[Grid], figures: Sequence[Path], folder: Path) -> str:
    """The Markdown of a report.

    Args:
        title: The sweep's name.
        grids: What `load_grids` found; at least one.
        figures: Files to show, such as PNG.
        folder: Where the Markdown will lie.
    """
    names = grid_names(grids)
    parts = [f"# Report: {text(title)}", text(headline(grids)), *map(text, single_seed_note(grids))]
    for name, grid in zip(names, grids, strict=True):
        suffix = f": {text(name)}" if len(grids) > 1 else ""
        parts += [f"## Map{suffix}", "Best validation accuracy in %.", _map(grid), f"## Answers{suffix}"]
        for answer in answers(grid, [other for other in grids if other is not grid]):
            parts += [f"### {text(answer.question)}", _list(answer.lines)]
    parts += ["## Results", _table(grids, names)]
    for name, grid in zip(names, grids, strict=True):
        if lines := confusions(grid):
            parts += [f"## Confusions on the test set{f': {text(name)}' if len(grids) > 1 else ''}", _list(lines)]
    if figures:
        parts += ["## Learning curves", *(_figure(figure, folder) for figure in figures)]
    parts += ["## Conditions", _list([f"{name}: {value}" for name, value in conditions(grids)])]
    parts += ["## How to read it", _list(notes(grids))]
    return "\n\n".join(parts) + "\n"


def text(content: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(content.split()))


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {text(line)}" for line in lines)


def _rows(rows: Sequence[Sequence[str]], words: Collection[str]) -> str:
    """A table; the first row is its head, and columns under any but these words are set to the right."""
    rule = ["---" if head in words else "--:" for head in rows[0]]
    first, *others = [[text(field) for field in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (first, rule, *others))


def _map(grid: Grid) -> str:
    heads = ["", *(f"K = {k}" for k in grid.by_width)]
    return _rows([heads, *([f"L = {depth}", *map(_field, squares)] for depth, squares in map_rows(grid))], [""])


def _field(square: Square) -> str:
    if square.cell is None or not square.cell.finished:
        return square.remark
    return f"{square.accuracy} ({square.remark})" if square.remark else square.accuracy


def _table(grids: Sequence[Grid], names: Sequence[str]) -> str:
    if len(grids) == 1:
        return _rows([HEADS, *table(grids[0])], WORDS)
    rows = [[line[0], name, *line[1:]] for name, grid in zip(names, grids, strict=True) for line in table(grid)]
    return _rows([[HEADS[0], "variant", *HEADS[1:]], *rows], [*WORDS, "variant"])


def _figure(figure: Path, folder: Path) -> str:
    try:
        place = figure.relative_to(folder)
    except ValueError:
        place = figure
    return f"![{text(figure.stem)}](<{place.as_posix()}>)"
