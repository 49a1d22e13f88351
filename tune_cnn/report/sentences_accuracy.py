"""Sentences on accuracy: the best cell in each row of a grid, trends along rows, and the interplay of both axes."""

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

from tune_cnn.report.grids import Cell, Grid, Row
from tune_cnn.report.noise import Mean, difference
from tune_cnn.report.runs import VERDICTS
from tune_cnn.report.wording import levels, number, percent
from tune_cnn.texts import by_size


def nouns(grid: Grid) -> list[str]:
    """Names of the axes in sentences, such as `width`; K stays K if its lists differ in length, and so in depth too."""
    is_width = len({len(cell.settings.filters_per_layer) for cell in grid.cells}) == 1
    known = {"L": "depth", **({"K": "width"} if is_width else {})}
    return [known.get(axis, axis) for axis in grid.axes]


def rankings(grid: Grid) -> list[str]:
    """Rank the cells at each value of the first axis, such as width, and say whether gaps exceed the noise."""
    return [_ranking(row) for row in grid.rows(grid.axes[-1]) if len(row.cells) > 1 and row.learned]


def trends(grid: Grid) -> list[str]:
    """Describe how accuracy changes along the first axis, if numeric, at each value of the other."""
    return [_trend(row) for row in grid.rows(grid.axes[0]) if len(row.learned) > 1 and _are_numbers(row)]


def interplay(grid: Grid) -> list[str]:
    """Say which of two axes decides what learns, and which changes accuracy more."""
    across, along = grid.rows(grid.axes[0]), grid.rows(grid.axes[-1])
    if min(len(across), len(along)) < 2:
        return []
    names = nouns(grid)
    lines = _learning(across, *names)
    effects = [_largest_effect(rows) for rows in (across, along)]
    if all(effects):
        changes = ", ".join(f"{name} changes accuracy by up to {e}" for name, e in zip(names, effects, strict=True))
        lines.append(f"Among the cells that learned, {changes}.")
    return lines


def ranked(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that learned, best first by the accuracy that is shown."""
    return sorted((cell for cell in cells if cell.state == "learned"), key=_shown, reverse=True)


def _ranking(row: Row) -> str:
    """`At K = 32, best first: L = 4 (67.2 %), L = 2 (62.6 %); L = 8 did not learn.`

    With several seeds: `L = 2 (62.0 ± 2.5 %, within the noise: ...)`.
    """
    first, *others = ranked(row.cells)
    entries = [f"{levels(row.varies, [first])} ({_accuracy(first)})"]
    for cell in others:
        gap = difference(first.accuracies, cell.accuracies)
        entries.append(f"{levels(row.varies, [cell])} ({_accuracy(cell)}{f', {_noise(gap)}' if gap else ''})")
    states = {state: [cell for cell in row.cells if cell.state == state] for state in VERDICTS[1:]}
    rest = [f"; {levels(row.varies, cells)} {state}" for state, cells in states.items() if cells]
    return f"{row.at('best first')}: {', '.join(entries)}{''.join(rest)}."


def _trend(row: Row) -> str:
    """`At L = 4, accuracy rises with K: 62.6 % (K = 32), 63.9 % (K = 64).`"""
    cells = row.learned
    steps = [_shown(b) - _shown(a) for a, b in pairwise(cells)]
    rises, falls = any(step > 0 for step in steps), any(step < 0 for step in steps)
    shape = "rises and falls" if rises and falls else "rises" if rises else "falls" if falls else "does not change"
    values = ", ".join(f"{_accuracy(cell)} ({levels(row.varies, [cell])})" for cell in cells)
    sentence = f"{row.at('accuracy')} {shape} with {row.varies}: {values}."
    low, high = min(cells, key=_shown), max(cells, key=_shown)
    if all(len(cell.accuracies) > 1 for cell in cells) and (gap := difference(high.accuracies, low.accuracies)):
        sentence += f" The largest difference is {_noise(gap)}."
    return sentence


def _are_numbers(row: Row) -> bool:
    return all(math.isfinite(by_size(cell.level(row.varies))[0]) for cell in row.cells)


def _learning(rows: Sequence[Row], across: str, along: str) -> list[str]:
    """Say which axis decides what learns; `along`, fixed in each row, does so alone if the cells of every row agree."""
    verdicts = {row: {cell.verdict for cell in row.cells} for row in rows if len(row.cells) > 1}
    if mixed := [row for row, found in verdicts.items() if found >= {"learned", "did not learn"}]:
        return [f"{row.at(across)} decides what learns." for row in mixed]
    always, never = (
        [row.cells[0] for row, found in verdicts.items() if found == {verdict}]
        for verdict in ("learned", "did not learn")
    )
    if not (always and never) or len(always + never) < len(verdicts):
        return []
    varies, fixed = always[0].axes
    where = f"{levels(fixed, always)} learned at every {varies}, {levels(fixed, never)} at none"
    return [f"What learns is decided by {along}, not by {across}: {where}."]


def _largest_effect(rows: Sequence[Row]) -> str | None:
    """The largest difference along rows among cells that learned: `4.1 points (at L = 2, from K = 32 to 256)`."""
    pairs = [(row, pair) for row in rows for pair in combinations(row.learned, 2)]
    if not pairs:
        return None
    row, (a, b) = max(pairs, key=lambda found: abs(_shown(found[1][0]) - _shown(found[1][1])))
    from_to = f"from {levels(row.varies, [a])} to {b.level(row.varies)}"
    if (gap := difference(a.accuracies, b.accuracies)) and gap.is_noise:
        from_to += ", within the noise"
    return f"{abs(_shown(a) - _shown(b)):.1f} points (at {row.fixed}, {from_to})"


def _accuracy(cell: Cell) -> str:
    return percent(cell.accuracy) if len(cell.counts) == 1 else f"{percent(cell.accuracy)}, {cell.verdict}"


def _noise(gap: Mean) -> str:
    return f"{'within' if gap.is_noise else 'beyond'} the noise: {number(gap)} points"


def _shown(cell: Cell) -> float:
    """The accuracy as shown, that is rounded, so that sentences agree with the map."""
    assert cell.accuracy is not None
    return round(cell.accuracy.value, 1)
