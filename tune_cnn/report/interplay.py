"""Depth and width together: does one change what the other does?"""

from collections.abc import Mapping, Sequence

from tune_cnn.report.cells import Cell
from tune_cnn.report.noise import difference
from tune_cnn.report.phrases import levels, merged, percent
from tune_cnn.report.rows import DEPTH, WIDTH, Axis, compared, largest_effect, ranked


def interplay(widths: Mapping[str, Sequence[Cell]], depths: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Lines about both; nothing where only one of them was varied."""
    if len(widths) < 2 or len(depths) < 2:
        return []
    return [*_learnability(depths), *_favourites(widths, DEPTH), *_favourites(depths, WIDTH), *_effects(widths, depths)]


def _learnability(depths: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Whether it is the depth alone that decides what learns."""
    settled = {row[0].depth: [cell for cell in row if cell.finished] for row in depths.values()}
    settled = {depth: row for depth, row in settled.items() if len(row) > 1}  # one width tells nothing of widths
    always = [depth for depth, row in settled.items() if len(compared(row)) == len(row)]
    never = [depth for depth, row in settled.items() if not compared(row)]
    mixed = {depth: row for depth, row in settled.items() if depth not in always and depth not in never}
    if not mixed and not (always and never):
        return []  # the question before says so
    if not mixed:
        return [
            f"Here, whether a network learns depends on its depth and not on its width: "
            f"{levels('L', always)} learned at every K that was run, {levels('L', never)} at none."
        ]
    return [
        f"At L = {depth} it depends on the width whether the network learns: {WIDTH.name(*compared(row))} did, "
        f"{WIDTH.name(*[cell for cell in row if cell not in compared(row)])} did not."
        for depth, row in mixed.items()
    ]


def _favourites(rows: Mapping[str, Sequence[Cell]], axis: Axis) -> list[str]:
    """Whether every row has its highest accuracy at the same place."""
    best: dict[str, list[str]] = {}  # from places to rows
    unclear = []
    for fixed, row in rows.items():
        if len(cells := ranked(row)) < 2:
            continue
        gaps = [difference(cells[0].accuracies, cell.accuracies) for cell in cells[1:]]
        if all(gap is not None for gap in gaps) and any(gap.is_noise for gap in gaps if gap):
            unclear.append(fixed)
            continue
        top = percent(cells[0].accuracy and cells[0].accuracy.value)
        equal = [cell for cell in compared(row) if percent(cell.accuracy and cell.accuracy.value) == top]
        best.setdefault(axis.name(*equal), []).append(fixed)
    if sum(map(len, best.values())) + len(unclear) < 2:
        return []
    lines = []
    places = [f"{place} at {merged(found)}" for place, found in best.items()]
    if len(places) > 1:
        lines.append(f"The {axis.noun} with the highest accuracy changes: {'; '.join(places)}.")
    elif places:
        alike = " alike" if sum(map(len, best.values())) > 1 else ""
        lines.append(f"The highest accuracy is that of {places[0]}{alike}.")
    if unclear:
        lines.append(f"At {merged(unclear)} no {axis.noun} is the best beyond the noise.")
    return [" ".join(lines)]


def _effects(widths: Mapping[str, Sequence[Cell]], depths: Mapping[str, Sequence[Cell]]) -> list[str]:
    """How much each of the two moves accuracy, among cells that learned."""
    of_width = largest_effect([*depths.items()], WIDTH)
    of_depth = largest_effect([*widths.items()], DEPTH)
    if not of_width or not of_depth:
        return []
    return [
        f"Among the cells that learned, the width moves accuracy by up to {of_width}, the depth by up to {of_depth}."
    ]
