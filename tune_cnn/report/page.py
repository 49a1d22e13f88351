"""The report as a self-contained HTML page and as Markdown, rendered from the templates beside this file."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tune_cnn.report.grids import Grid
from tune_cnn.report.page_figures import cost_figure, curve_figures
from tune_cnn.report.search import search_report, split_grids
from tune_cnn.report.sentences import NOTES, answers, conditions, summary
from tune_cnn.report.table import LEFT_ALIGNED, accuracy_range, map_rows, results_table
from tune_cnn.report.wording import grid_names
from tune_cnn.texts import printable

# Characters that Markdown interprets; an underscore within a word is not one.
_SPECIAL = re.compile(r"([\\`*{}\[\]<>#|~&$!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
# Spaces that keep numbers on one line with their units and symbols.
_UNBREAKABLE = re.compile(r"(?<=\d) (?=%|±)|(?<=±) (?=\d)| (?==)|(?<= =) (?=\d)")


def page(title: str, grids: Sequence[Grid]) -> str:
    """Render the HTML page of a report with this title on one or more grids of `load_grids`."""
    curves = curve_figures([run for grid in grids for run in grid.runs if not run.search])
    return _rendered("report.html", _html, title, grids, curves=curves, cost=cost_figure)


def markdown(title: str, grids: Sequence[Grid], figures: Sequence[Path]) -> str:
    """Render the same report as Markdown; it shows the figures' files, which lie in its folder."""
    return _rendered("report.md", markdown_text, title, grids, figures=figures)


def markdown_text(content: object) -> object:
    """Escape a text, so that Markdown shows it verbatim and on one line; the output of macros is left as it is."""
    if type(content) is not str:
        return content
    return Markup(_SPECIAL.sub(r"\\\1", " ".join(printable(content, keep="\n\t").split())))


def _html(content: object) -> object:
    """Remove control characters from a text, which Jinja then escapes; the SVG of figures is left as it is."""
    return _UNBREAKABLE.sub("\N{NO-BREAK SPACE}", printable(content, keep="\n\t")) if type(content) is str else content


def _rendered(template: str, finalize: Any, title: str, grids: Sequence[Grid], **more: Any) -> str:
    environment = Environment(
        loader=PackageLoader("tune_cnn.report"),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    searched, in_grids = split_grids(grids)
    colours = accuracy_range(in_grids)
    search = search_report(searched) if searched else None
    tables = [("Ranking", search.ranking)] if search else []
    tables += [("Results", results_table(in_grids))] if in_grids else []
    names = [f": {name}" if name else "" for name in grid_names(in_grids)]
    parts = [
        {
            "grid": grid,
            "suffix": name,
            "map": map_rows(grid, colours),
            "answers": answers(grid, [other for other in in_grids if other is not grid]),
        }
        for name, grid in zip(names, in_grids, strict=True)
    ]
    content = environment.get_template(template).render(
        title=title, summary=summary(grids), parts=parts, colours=colours, search=search,
        tables=tables, left_aligned=LEFT_ALIGNED, conditions=conditions(grids), notes=NOTES, **more,
    )  # fmt: skip
    return content.strip() + "\n"
