"""Which networks did not learn, why, and what was tried on them."""

from collections.abc import Sequence
from statistics import fmean

from tune_cnn.report.cells import Cell, Grid
from tune_cnn.report.expectations import expectations, weak_signal
from tune_cnn.report.phrases import differences, percent, places
from tune_cnn.report.reasons import REMEDIES, lost_signal, reason
from tune_cnn.report.runs import VERDICTS
from tune_cnn.train_results import chance


def not_learned(grid: Grid) -> list[str]:
    """Which cells did not learn, each with the reason; what failed, and what is unfinished."""
    by_state = {state: [cell for cell in grid.cells if cell.state == state] for state in VERDICTS}
    flat = by_state["did not learn"]
    guessing = chance(grid.settings.data.classes)
    scale = f"guessing gives {percent(guessing)}, and more than {percent(1.5 * guessing)} counts as learned"
    lines = []
    if flat:
        best = max((accuracy for cell in flat for accuracy in cell.accuracies), default=0.0)
        reach = "It reaches" if len(flat) == 1 else "They reach at most"
        lines.append(f"{places(flat)} did not learn. {reach} {percent(best)} validation accuracy; {scale}.")
    reasons: dict[str, list[Cell]] = {}
    for cell in flat:
        reasons.setdefault(reason(cell, grid), []).append(cell)
    lines += [f"{'Why' if len(reasons) == 1 else places(cells)}: {why}" for why, cells in reasons.items()]
    lines += weak_signal(grid)
    if diverged := by_state["diverged"]:
        remedy = f"a lower lr than {grid.settings.lr:g} is the usual remedy"
        lines.append(f"{places(diverged)} diverged: a loss was no longer a finite number; {remedy}.")
    if by_state["learned"] and not flat:
        whole = "Every other cell" if diverged else "Every cell"
        if by_state["failed"] or by_state["unfinished"]:
            whole = whole.replace("cell", "finished cell")
        lowest = min(accuracy for cell in by_state["learned"] for accuracy in cell.accuracies)
        lines.append(f"{whole} learned: the lowest validation accuracy is {percent(lowest)}; {scale}.")
    lines += [f"{cell.label}: of {len(cell.runs)} runs, {cell.verdict}." for cell in grid.cells if len(cell.counts) > 1]
    for cell in by_state["failed"]:
        lines.append(f"{cell.label} failed: {next(run.failure for run in cell.runs if run.failure is not None)}")
    if by_state["unfinished"]:
        verb = "is" if len(by_state["unfinished"]) == 1 else "are"
        lines.append(f"{places(by_state['unfinished'])} {verb} unfinished.")
    return lines + expectations(grid)


def tried(grid: Grid, others: Sequence[Grid]) -> list[str]:
    """What other grids gave on the same K and L."""
    flat = [cell for cell in grid.cells if cell.state == "did not learn"]
    lines = [REMEDIES] if any(lost_signal(cell, grid) for cell in flat) else []
    ours = {(cell.widths, cell.depth): cell for cell in grid.cells}
    compared_lines = []
    for other in others:
        pairs = [
            (ours[key], cell) for cell in other.cells if (key := (cell.widths, cell.depth)) in ours and cell.finished
        ]
        compared_lines += _comparison(
            differences(other.settings, grid.settings), differences(grid.settings, other.settings), pairs
        )
    if flat and not compared_lines:
        compared_lines = ["Nothing else was tried in this sweep on the cells that did not learn."]
    return lines + compared_lines


def _comparison(theirs: str, ours: str, pairs: Sequence[tuple[Cell, Cell]]) -> list[str]:
    """What another grid gave on the cells that both have."""
    lines = []
    flat = [(mine, other) for mine, other in pairs if mine.state == "did not learn"]
    if flat:
        rescued = [other for _, other in flat if other.state == "learned"]
        values = f": {', '.join(f'{percent(cell.accuracy)} ({cell.label})' for cell in rescued)}" if rescued else ""
        if len(flat) == 1:
            which, did = "the cell", "did" if rescued else "did not either"
        else:
            count = "all" if len(rescued) == len(flat) else f"{len(rescued)} of the" if rescued else "none of the"
            which, did = f"{count} {len(flat)} cells", "did"
        lines.append(f"With {theirs}, {which} that did not learn with {ours} {did}{values}.")
    both = [(mine, other) for mine, other in pairs if mine.state == other.state == "learned"]
    gains = [other.accuracy.value - mine.accuracy.value for mine, other in both if mine.accuracy and other.accuracy]
    if len(gains) == 1:
        ((mine, other),) = both
        lines.append(f"{mine.label}: {percent(other.accuracy)} with {theirs}, {percent(mine.accuracy)} with {ours}.")
    elif gains:
        lines.append(
            f"On the {len(gains)} cells that both learned, {theirs} differs from {ours} by {fmean(gains):+.1f} points "
            f"on average ({min(gains):+.1f} to {max(gains):+.1f})."
        )
    return lines
