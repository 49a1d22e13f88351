"""One row of a grid in sentences: cells of one K compared over L, or of one L over K."""

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

from tune_cnn.report.cells import Cell
from tune_cnn.report.noise import Difference, difference
from tune_cnn.report.phrases import levels, listed, percent


class Axis(NamedTuple):
    """What varies along a row.

    Attributes:
        symbol: `K` or `L`.
        noun: `width` or `depth`.
        level: A cell's value of it.
    """

    symbol: str
    noun: str
    level: Callable[[Cell], object]

    def name(self, *cells: Cell) -> str:
        """`L = 2 and 4`."""
        return levels(self.symbol, map(self.level, cells))

    def mention(self, cell: Cell, *remarks: str) -> str:
        """`L = 2 (65.1 %)`."""
        return f"{self.name(cell)} ({', '.join([percent(cell.accuracy), *_how_often(cell), *remarks])})"


WIDTH = Axis("K", "width", lambda cell: cell.k)
DEPTH = Axis("L", "depth", lambda cell: cell.depth)


def compared(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of a row whose accuracies can be compared: of which a run learned."""
    return [cell for cell in cells if cell.state == "learned"]


def ranked(cells: Sequence[Cell]) -> list[Cell]:
    """Those of `compared`, the best first."""
    return sorted(compared(cells), key=_value, reverse=True)


def is_open(cells: Sequence[Cell]) -> bool:
    """Whether a cell of the row has no results."""
    return any(cell.state in ("failed", "unfinished") for cell in cells)


def ranking(fixed: str, axis: Axis, cells: Sequence[Cell]) -> list[str]:
    """Which cell of a row is the best, and by how much.

    Args:
        fixed: What the row has in common, such as `K = 32`.
        axis: What varies.
        cells: Two or more, in the order of the axis.
    """
    rest = _rest(axis, cells)
    best_first = ranked(cells)
    if not best_first:
        if all(cell.state == "did not learn" for cell in cells):
            return [f"At {fixed} the network did not learn at any {axis.noun} ({axis.name(*cells)})."]
        return [f"At {fixed} no {axis.noun} has learned: {rest}."]
    first, *others = best_first
    if not others:
        only = "" if is_open(cells) else "only "
        return [f"At {fixed}, {only}{axis.mention(first)} learned; {rest}."]

    so_far = " so far" if is_open(cells) else ""
    sentences = []
    gaps = [(cell, difference(first.accuracies, cell.accuracies)) for cell in others]
    if any(gap is None for _, gap in gaps):
        sentences.append(_plain_ranking(fixed, axis, first, others, so_far))
    else:
        sentences.append(_ranking_with_noise(fixed, axis, first, [(c, gap) for c, gap in gaps if gap], so_far))
    if rest:
        sentences.append(f"{rest}.")
    return sentences


def trend(fixed: str, axis: Axis, cells: Sequence[Cell]) -> list[str]:
    """How accuracy moves along a row; the arguments are those of `ranking`."""
    learned = compared(cells)
    if len(learned) < 2:
        return ranking(fixed, axis, cells)
    rest = _rest(axis, cells)
    gaps = [difference(b.accuracies, a.accuracies) for a, b in pairwise(learned)]
    repeated = all(gap is not None for gap in gaps)
    what = "the mean accuracy" if repeated else "accuracy"
    if len(learned) == 2 and (step := _step(*learned)):
        start, end = (_value_at(axis, cell) for cell in learned)
        sentences = [f"At {fixed} {what} {'rises' if step > 0 else 'falls'} from {start} to {end}."]
    else:
        values = ", ".join(_value_at(axis, cell) for cell in learned)
        sentences = [f"At {fixed} {what} {_shape(axis, learned)}: {values}."]
    if repeated:
        sentences.append(_noise_of_trend(axis, learned, [gap for gap in gaps if gap]))
    if rest:
        sentences.append(f"{rest}.")
    return sentences


def largest_effect(rows: Sequence[tuple[str, Sequence[Cell]]], axis: Axis) -> str | None:
    """The largest difference along an axis among cells that learned: `4.1 points (at L = 2, from K = 32 to 256)`."""
    effects = []
    for fixed, cells in rows:
        for a, b in combinations(compared(cells), 2):
            levels_between = f"from {axis.name(a)} to {axis.level(b)}"
            effects.append((abs(_value(a) - _value(b)), f"at {fixed}, {levels_between}"))
    if not effects:
        return None
    points, where = max(effects, key=lambda effect: effect[0])
    return f"{points:.1f} points ({where})"


def _plain_ranking(fixed: str, axis: Axis, first: Cell, others: Sequence[Cell], so_far: str) -> str:
    equal = [cell for cell in others if _step(cell, first) == 0]
    lower = [cell for cell in others if _step(cell, first) != 0]
    before = f", before {listed(axis.mention(cell) for cell in lower)}" if lower else ""
    if not equal:
        value = ", ".join([percent(first.accuracy), *_how_often(first)])
        return f"At {fixed} the best {axis.noun}{so_far} is {axis.name(first)} with {value}{before}."
    best = sorted([first, *equal], key=lambda cell: (cell.depth, sum(cell.widths)))
    each = f"{'both' if len(best) == 2 else 'all'} with {percent(_value(first))}"
    return f"At {fixed} the best {axis.noun}s{so_far} are {axis.name(*best)}, {each}{before}."


def _ranking_with_noise(
    fixed: str, axis: Axis, first: Cell, gaps: Sequence[tuple[Cell, Difference]], so_far: str
) -> str:
    value = ", ".join([percent(first.accuracy), *_how_often(first)])
    near = [axis.mention(cell, f"difference {_interval(gap)}") for cell, gap in gaps if gap.is_noise]
    far = [axis.mention(cell) for cell, gap in gaps if not gap.is_noise]
    if not near:
        return (
            f"At {fixed} the best {axis.noun}{so_far} is {axis.name(first)} with {value}, "
            f"beyond the noise before {listed(far)}."
        )
    lie = "lies" if len(near) == 1 else "lie"
    sentence = (
        f"At {fixed} the highest mean{so_far} is that of {axis.name(first)}, {value}, "
        f"but {listed(near)} {lie} within the noise of it"
    )
    lie = "lies" if len(far) == 1 else "lie"
    return sentence + (f"; {listed(far)} {lie} below it, beyond the noise." if far else ".")


def _noise_of_trend(axis: Axis, cells: Sequence[Cell], steps: Sequence[Difference]) -> str:
    low, high = min(cells, key=_value), max(cells, key=_value)
    whole = difference(high.accuracies, low.accuracies)
    assert whole is not None
    if whole.is_noise:
        ends = "The difference lies within the noise"
        if len(cells) > 2:
            ends = "Even the highest and the lowest mean lie within the noise of each other"
        return f"{ends} ({_interval(whole)}): these runs do not tell that {axis.symbol} matters here."
    if len(cells) == 2:
        return f"The difference lies beyond the noise ({_interval(whole)})."
    sentence = f"From {axis.name(low)} to {axis.level(high)} the difference lies beyond the noise ({_interval(whole)})"
    noise = [(a, b) for (a, b), step in zip(pairwise(cells), steps, strict=True) if step.is_noise]
    if not noise:
        return f"{sentence}, and so does every step."
    steps_named = listed(f"from {axis.name(a)} to {axis.level(b)}" for a, b in noise)
    return (
        f"{sentence}; {f'the steps {steps_named} lie' if len(noise) > 1 else f'the step {steps_named} lies'} within it."
    )


def _shape(axis: Axis, cells: Sequence[Cell]) -> str:
    steps = [_step(a, b) for a, b in pairwise(cells)]
    moves = [step for step in steps if step]
    if not moves:
        return f"is the same at every {axis.symbol}"
    if len(set(moves)) == 1:
        verb = "rises" if moves[0] > 0 else "falls"
        return (
            f"{verb} with every step of {axis.symbol}"
            if len(moves) == len(steps)
            else f"{verb} or stays with {axis.symbol}"
        )
    if moves == sorted(moves, reverse=True):
        return f"rises up to {axis.name(max(cells, key=_value))} and falls beyond it"
    if moves == sorted(moves):
        return f"falls down to {axis.name(min(cells, key=_value))} and rises beyond it"
    return f"goes up and down with {axis.symbol}"


def _rest(axis: Axis, cells: Sequence[Cell]) -> str:
    """The cells that cannot be compared: `L = 8 and 16 did not learn, L = 32 failed`."""
    verbs = {"did not learn": "did not learn", "diverged": "diverged", "failed": "failed"}
    parts = []
    for state, verb in verbs.items():
        if found := [cell for cell in cells if cell.state == state]:
            parts.append(f"{axis.name(*found)} {verb}")
    if found := [cell for cell in cells if cell.state == "unfinished"]:
        parts.append(f"{axis.name(*found)} {'is' if len(found) == 1 else 'are'} unfinished")
    return ", ".join(parts)


def _how_often(cell: Cell) -> list[str]:
    return [] if len(cell.counts) == 1 else [f"learned in {cell.counts['learned']} of {len(cell.runs)} runs"]


def _interval(gap: Difference) -> str:
    return f"{gap.value:.1f} points, 95 % interval {gap.low:.1f} to {gap.high:.1f}"


def _value_at(axis: Axis, cell: Cell) -> str:
    return f"{percent(cell.accuracy)} ({', '.join([axis.name(cell), *_how_often(cell)])})"


def _value(cell: Cell) -> float:
    assert cell.accuracy is not None
    return cell.accuracy.value


def _step(before: Cell, after: Cell) -> int:
    """1, 0 or -1: whether accuracy rises, as the reader sees it: rounded."""
    a, b = round(_value(before), 1), round(_value(after), 1)
    return (b > a) - (b < a)
