"""Sentences on accuracy: which depth is best at each width, how accuracy changes with width, and both together."""

from collections.abc import Sequence
from itertools import combinations, pairwise

from tune_cnn.report.grids import Cell, Grid, Row
from tune_cnn.report.noise import Difference, difference, mean
from tune_cnn.report.runs import VERDICTS
from tune_cnn.report.wording import be, levels, listed, percent


def best_depths(grid: Grid) -> list[str]:
    """Which depth is best at each width, and whether by more than the noise."""
    lines = [ranking(row) for row in grid.rows("L") if len(row.cells) > 1]
    return lines or ["No width was run at more than one depth, so this sweep does not tell which depth is best."]


def width_trends(grid: Grid) -> list[str]:
    """How accuracy changes with the width at each depth."""
    lines = [trend(row) for row in grid.rows("K") if len(row.cells) > 1]
    return lines or ["No depth was run at more than one width, so this sweep does not tell what width does."]


def interplay(grid: Grid) -> list[str]:
    """Whether width and depth change what the other does; nothing where only one of them was varied."""
    by_depth, by_width = grid.rows("K"), grid.rows("L")
    if len(by_depth) < 2 or len(by_width) < 2:
        return []
    lines = [*_learning_by_width(by_depth), *_best_everywhere(by_width), *_best_everywhere(by_depth)]
    effects = [_largest_effect(rows) for rows in (by_depth, by_width)]
    if all(effects):
        lines.append(
            f"Among the cells that learned, width changes accuracy by up to {effects[0]}, depth by up to {effects[1]}."
        )
    return lines


def ranked(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that learned, the best first, by the accuracy that the reader sees."""
    return sorted((cell for cell in cells if cell.state == "learned"), key=_shown, reverse=True)


def ranking(row: Row) -> str:
    """Which cell of a row is best: `At K = 32, L = 4 is best (67.2 %), ahead of L = 2 (62.6 %).`"""
    if not row.learned:
        if all(cell.state == "did not learn" for cell in row.cells):
            return f"At {row.fixed}, no {row.noun} learned ({levels(row.varies, row.cells)})."
        return f"At {row.fixed}, no {row.noun} has learned: {_rest(row)}."
    first, *others = ranked(row.cells)
    if not others:
        only = "" if row.is_open else "only "
        return f"At {row.fixed}, {only}{_mention(row, first)} learned; {_rest(row)}."
    so_far = " so far" if row.is_open else ""
    best = [cell for cell in row.learned if _shown(cell) == _shown(first)]
    lower = [cell for cell in others if cell not in best]
    gaps = {cell: gap for cell in others if (gap := difference(first.accuracies, cell.accuracies))}
    near = [cell for cell, gap in gaps.items() if gap.is_noise]
    sentences = []
    if len(gaps) == len(others) and near:
        mentions = listed(_mention(row, cell, f"lower by {_interval(gaps[cell])}") for cell in near)
        sentence = (
            f"At {row.fixed}, {levels(row.varies, [first])} has the highest mean{so_far} ({_accuracy(first)}), "
            f"but {mentions} {be(near)} within the noise"
        )
        far = [cell for cell in others if cell not in near]
        below = f"; {listed(_mention(row, cell) for cell in far)} {be(far)} below it" if far else ""
        sentences.append(f"{sentence}{below}.")
    else:
        each = " each" if len(best) > 1 else ""
        sentence = f"At {row.fixed}, {levels(row.varies, best)} {be(best)} best{so_far} ({_accuracy(first)}{each})"
        if lower:
            sentence += f", ahead of {listed(_mention(row, cell) for cell in lower)}"
            sentence += " by more than the noise" if len(gaps) == len(others) else ""
        sentences.append(f"{sentence}.")
        if len(best) == 1:
            sentences += _training_accuracy(row, first, lower[0])
    if rest := _rest(row):
        sentences.append(f"{rest}.")
    return " ".join(sentences)


def trend(row: Row) -> str:
    """How accuracy changes along a row: `At L = 4, accuracy rises with K: 62.6 % (K = 32), 63.9 % (K = 64).`"""
    cells = row.learned
    if len(cells) < 2:
        return ranking(row)
    repeated = all(len(cell.accuracies) > 1 for cell in cells)
    values = ", ".join(f"{percent(cell.accuracy)} ({levels(row.varies, [cell])}{_how_often(cell)})" for cell in cells)
    sentences = [f"At {row.fixed}, {'mean ' if repeated else ''}accuracy {_shape(row.varies, cells)}: {values}."]
    if repeated:
        sentences.append(_noise_of_trend(row))
    if rest := _rest(row):
        sentences.append(f"{rest}.")
    return " ".join(sentences)


def _training_accuracy(row: Row, first: Cell, second: Cell) -> list[str]:
    """Whether the best cell of a row also fits the training images better than the next one."""
    ours, theirs = (mean(cell.values("training_accuracy")) for cell in (first, second))
    if not ours or not theirs or abs(ours.value - theirs.value) < 0.1:
        return []
    closely = f"{'more' if ours.value > theirs.value else 'less'} closely than {levels(row.varies, [second])}"
    return [f"It fits the training images {closely} ({percent(ours.value)} against {percent(theirs.value)})."]


def _noise_of_trend(row: Row) -> str:
    low, high = min(row.learned, key=_shown), max(row.learned, key=_shown)
    gap = difference(high.accuracies, low.accuracies)
    assert gap is not None
    noise = f"within the noise ({_interval(gap)}), so {row.varies} may not matter here"
    which = "largest difference" if len(row.learned) > 2 else "difference"
    return f"The {which} is {noise if gap.is_noise else f'beyond the noise ({_interval(gap)})'}."


def _shape(symbol: str, cells: Sequence[Cell]) -> str:
    steps = [_shown(b) - _shown(a) for a, b in pairwise(cells)]
    moves = [step > 0 for step in steps if step]
    if not moves:
        return f"is the same at every {symbol}"
    if len(set(moves)) == 1:
        return f"{'rises' if moves[0] else 'falls'}{'' if len(moves) == len(steps) else ' or stays'} with {symbol}"
    if moves == sorted(moves, reverse=True):
        return f"rises up to {levels(symbol, [max(cells, key=_shown)])}, then falls"
    if moves == sorted(moves):
        return f"falls down to {levels(symbol, [min(cells, key=_shown)])}, then rises"
    return f"goes up and down with {symbol}"


def _rest(row: Row) -> str:
    """The cells that cannot be compared: `L = 8 and 16 did not learn, L = 32 failed`."""
    parts = []
    for state in VERDICTS[1:]:
        if found := [cell for cell in row.cells if cell.state == state]:
            verb = {"unfinished": f"{be(found)} unfinished", "no accuracies": f"{be(found)} without accuracies"}
            parts.append(f"{levels(row.varies, found)} {verb.get(state, state)}")
    return ", ".join(parts)


def _learning_by_width(rows: Sequence[Row]) -> list[str]:
    """Whether the depth alone decides what learns, as far as cells of several widths tell."""
    always, never, lines = [], [], []
    for row in rows:
        learned = [cell for cell in row.cells if set(cell.counts) == {"learned"}]
        flat = [cell for cell in row.cells if set(cell.counts) == {"did not learn"}]
        if learned and flat:
            names = (levels("K", cells) for cells in (learned, flat))
            lines.append("At {}, the width decides: {} learned, {} did not.".format(row.fixed, *names))
        elif len(learned) == len(row.cells) > 1:
            always.append(row.cells[0])
        elif len(flat) == len(row.cells) > 1:
            never.append(row.cells[0])
    if lines or not (always and never):
        return lines
    where = f"{levels('L', always)} learned at every K, {levels('L', never)} at none"
    return [f"Depth, not width, decides what learns: {where}."]


def _best_everywhere(rows: Sequence[Row]) -> list[str]:
    """Whether every row has its highest accuracy at the same place."""
    best: dict[str, list[Cell]] = {}  # by place, a cell of each row
    unclear = []
    for row in rows:
        if len(row.learned) < 2:
            continue
        first, *others = ranked(row.cells)
        gaps = [difference(first.accuracies, cell.accuracies) for cell in others]
        if all(gaps) and any(gap.is_noise for gap in gaps if gap):
            unclear.append(first)
        else:
            equal = [cell for cell in row.learned if _shown(cell) == _shown(first)]
            best.setdefault(levels(row.varies, equal), []).append(first)
    if sum(map(len, best.values())) + len(unclear) < 2:
        return []
    fixed = "K" if rows[0].varies == "L" else "L"
    where = [f"{place} at {levels(fixed, cells)}" for place, cells in best.items()]
    lines = [f"The best {rows[0].noun} {'changes:' if len(where) > 1 else 'is'} {'; '.join(where)}."] if where else []
    if unclear:
        lines.append(f"At {levels(fixed, unclear)}, no {rows[0].noun} is best beyond the noise.")
    return [" ".join(lines)]


def _largest_effect(rows: Sequence[Row]) -> str | None:
    """The largest difference along rows among cells that learned: `4.1 points (at L = 2, from K = 32 to 256)`."""
    pairs = [(row, pair) for row in rows for pair in combinations(row.learned, 2)]
    if not pairs:
        return None
    row, (a, b) = max(pairs, key=lambda found: abs(_shown(found[1][0]) - _shown(found[1][1])))
    from_to = f"from {levels(row.varies, [a])} to {b.level(row.varies)}"
    return f"{abs(_shown(a) - _shown(b)):.1f} points (at {row.fixed}, {from_to})"


def _mention(row: Row, cell: Cell, *remarks: str) -> str:
    """`L = 2 (65.1 %)`."""
    return f"{levels(row.varies, [cell])} ({', '.join([_accuracy(cell), *remarks])})"


def _accuracy(cell: Cell) -> str:
    return f"{percent(cell.accuracy)}{_how_often(cell)}"


def _how_often(cell: Cell) -> str:
    return "" if len(cell.counts) == 1 else f", {cell.verdict}"


def _interval(gap: Difference) -> str:
    return f"{gap.value:.1f} points, 95 % interval {gap.low:.1f} to {gap.high:.1f}"


def _shown(cell: Cell) -> float:
    """The accuracy as the reader sees it, rounded, so that sentences agree with the map."""
    assert cell.accuracy is not None
    return round(cell.accuracy.value, 1)
