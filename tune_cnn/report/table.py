"""The results table and the map of a grid as texts, which the page and the Markdown file both show."""

from collections.abc import Sequence
from typing import NamedTuple

from tune_cnn.report.cells import Cell, Grid
from tune_cnn.report.phrases import number
from tune_cnn.texts import duration

HEADS = (
    "experiment", "K", "L", "conv layers", "parameters", "multiply-adds", "epochs", "best val. acc. (%)", "at epoch",
    "test acc. (%)", "time", "expected", "verdict",
)  # fmt: skip
WORDS = ("experiment", "expected", "verdict")  # the heads of columns that are not numbers


def table(grid: Grid) -> list[list[str]]:
    """One line a cell, a text for each of `HEADS`; narrow networks first."""
    return [_line(cell) for row in grid.by_width.values() for cell in row]


def _line(cell: Cell) -> list[str]:
    parameters, multiply_adds, seconds = map(cell.mean_of, ("parameters", "multiply_adds", "duration_s"))
    histories = [run.history for run in cell.finished if run.history]
    return [
        names(cell),
        cell.k,
        str(cell.depth),
        str(len(cell.settings.filters)),
        "–" if parameters is None else f"{parameters:,.0f}",
        "–" if multiply_adds is None else f"{multiply_adds / 1e6:,.1f} M",
        _span([history.num_epochs for history in histories]),
        number(cell.accuracy, 2),
        _span([history.best_epoch for history in histories]),
        number(cell.test_accuracy, 2),
        "–" if seconds is None else duration(seconds),
        cell.expected,
        cell.verdict,
    ]


def names(cell: Cell) -> str:
    """The experiments of a cell: `exp_K32_L2`, or of several seeds `exp_K32_L2 (seeds 1, 2, 3)`."""
    if len(cell.runs) == 1:
        return ", ".join(cell.runs[0].names)
    found = [name.removesuffix(f"_S{run.settings.seed}") for run in cell.runs for name in run.names]
    seeds = ", ".join("none" if run.settings.seed is None else str(run.settings.seed) for run in cell.runs)
    return f"{', '.join(dict.fromkeys(found))} (seeds {seeds})"


def _span(values: Sequence[int]) -> str:
    if not values:
        return "–"
    return str(values[0]) if min(values) == max(values) else f"{min(values)}–{max(values)}"


class Square(NamedTuple):
    """One field of the map.

    Attributes:
        accuracy: `68.2`, with its interval if there are several runs, or a dash.
        remark: What to say beside it: the verdict unless all runs learned, else nothing.
        cell: The cell; None if it was not asked for.
    """

    accuracy: str
    remark: str
    cell: Cell | None


def map_rows(grid: Grid) -> list[tuple[int, list[Square]]]:
    """The map: L, and a field for each K of `grid.by_width`; shallow ones first."""
    found = {(cell.k, cell.depth): cell for cell in grid.cells}
    return [(depth, [_square(found.get((k, depth))) for k in grid.by_width]) for depth in grid.by_depth]


def _square(cell: Cell | None) -> Square:
    if cell is None:
        return Square("", "not run", None)
    return Square(number(cell.accuracy), "" if cell.verdict == "learned" else cell.verdict, cell)
