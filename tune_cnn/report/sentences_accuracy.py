"""Sentences on accuracy: the best cell in each row of a grid, trends along rows, and the interplay of both axes."""

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

from tune_cnn.report.grids import Cell, Grid, Row
from tune_cnn.report.noise import Difference, difference
from tune_cnn.report.runs import VERDICTS
from tune_cnn.report.wording import be, levels, listed, percent
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
    """`At K = 32, L = 4 is best (67.2 %), ahead of L = 2 (62.6 %); L = 8 did not learn.`

    With several seeds: `L = 2 (62.0 ± 2.5 %, within the noise: ...)`.
    """
    first, *others = ranked(row.cells)
    gaps = {cell: gap for cell in others if (gap := difference(first.accuracies, cell.accuracies))}
    if any(gap.is_noise for gap in gaps.values()):
        best, verb = [first], "has the highest mean"
    else:
        best = [cell for cell in row.learned if _shown(cell) == _shown(first)]
        verb = f"{be(best)} best"
    each = " each" if len(best) > 1 else ""
    sentence = f"{row.at}{levels(row.varies, best)} {verb}{' so far' if row.is_open else ''} ({_accuracy(first)}{each})"
    if lower := [cell for cell in others if cell not in best]:
        noise = {cell: f", {_noise(gap)}" for cell, gap in gaps.items()}
        runners_up = [f"{levels(row.varies, [cell])} ({_accuracy(cell)}{noise.get(cell, '')})" for cell in lower]
        sentence += f", ahead of {listed(runners_up)}"
    rest = _rest(row)
    return f"{sentence}; {rest}." if rest else f"{sentence}."


def _trend(row: Row) -> str:
    """`At L = 4, accuracy rises with K: 62.6 % (K = 32), 63.9 % (K = 64).`"""
    cells = row.learned
    values = ", ".join(f"{percent(cell.accuracy)} ({levels(row.varies, [cell])}{_how_often(cell)})" for cell in cells)
    sentence = f"{f'{row.at}accuracy' if row.at else 'Accuracy'} {_shape(row)}: {values}."
    low, high = min(cells, key=_shown), max(cells, key=_shown)
    if all(len(cell.accuracies) > 1 for cell in cells) and (gap := difference(high.accuracies, low.accuracies)):
        sentence += f" The largest difference is {_noise(gap)}."
    return sentence


def _shape(row: Row) -> str:
    steps = [_shown(b) - _shown(a) for a, b in pairwise(row.learned)]
    if not any(steps):
        return f"is the same at every {row.varies}"
    rises, falls = all(step >= 0 for step in steps), all(step <= 0 for step in steps)
    return f"{'rises' if rises else 'falls' if falls else 'rises and falls'} with {row.varies}"


def _are_numbers(row: Row) -> bool:
    return all(math.isfinite(by_size(cell.level(row.varies))[0]) for cell in row.cells)


def _rest(row: Row) -> str:
    """The cells that cannot be compared: `L = 8 and 16 did not learn, L = 32 failed`."""
    parts = []
    for state in VERDICTS[1:]:
        if found := [cell for cell in row.cells if cell.state == state]:
            verb = {"unfinished": f"{be(found)} unfinished", "no accuracies": f"{be(found)} without accuracies"}
            parts.append(f"{levels(row.varies, found)} {verb.get(state, state)}")
    return ", ".join(parts)


def _learning(rows: Sequence[Row], across: str, along: str) -> list[str]:
    """Say which axis decides what learns; `along`, fixed in each row, does so alone if the cells of every row agree."""
    rows = [row for row in rows if len(row.cells) > 1]
    always, never, lines = [], [], []
    for row in rows:
        learned = [cell for cell in row.cells if cell.verdict == "learned"]
        flat = [cell for cell in row.cells if cell.verdict == "did not learn"]
        if learned and flat:
            names = (levels(row.varies, cells) for cells in (learned, flat))
            who = f"the {across}" if across in ("width", "depth") else across
            lines.append("{}{} decides: {} learned, {} did not.".format(row.at, who, *names))
        elif len(learned) == len(row.cells):
            always.append(row.cells[0])
        elif len(flat) == len(row.cells):
            never.append(row.cells[0])
    if lines or not (always and never) or len(always + never) < len(rows):
        return lines
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
    return f"{percent(cell.accuracy)}{_how_often(cell)}"


def _how_often(cell: Cell) -> str:
    return "" if len(cell.counts) == 1 else f", {cell.verdict}"


def _noise(gap: Difference) -> str:
    which = "within" if gap.is_noise else "beyond"
    return f"{which} the noise: {gap.value:.1f} points, 95 % interval {gap.low:.1f} to {gap.high:.1f}"


def _shown(cell: Cell) -> float:
    """The accuracy as shown, that is rounded, so that sentences agree with the map."""
    assert cell.accuracy is not None
    return round(cell.accuracy.value, 1)
