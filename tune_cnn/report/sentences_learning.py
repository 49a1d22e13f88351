"""Sentences on learning: which networks did not learn and why, what was expected, what helped, what was confused."""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from tune_cnn.report.grids import Cell, Grid
from tune_cnn.report.runs import UNCLEAR, Run
from tune_cnn.report.wording import above, be, differing, is_network, listed, percent, places, variant
from tune_cnn.texts import counted
from tune_cnn.train_results import chance, epoch_means

# How far from ln(classes), relatively, the loss of a network may be whose scores do not depend on the image.
_AT_GUESSING = 0.01
_FEW_BATCHES = 30  # with fewer, a network that would learn may not have begun to
_STILL = 0.02  # how much the loss may vary, relatively, of a network that learns nothing
_PAIRS, _LEAST_PERCENT = 3, 5.0  # pairs of classes named for each network; of the class, to be named
_OUTCOMES = {"learned": "trains", "did not learn": "will not learn", "diverged": "will not learn"}

REMEDIES = (
    "Two things keep the signal: an initialisation made for ReLU (He et al., 2015), or batch normalisation with skip "
    "connections, as in YourCodeNet (ycn: true)."
)


def not_learned(grid: Grid) -> list[str]:
    """Which cells did not learn, each with the reason; what diverged, failed or is unfinished."""
    flat, unclear, diverged, unknown = (
        [cell for cell in grid.cells if cell.state == state]
        for state in ("did not learn", UNCLEAR, "diverged", "no accuracies")
    )
    guessing = chance(grid.settings.data.classes)
    scale = f"guessing gives {percent(guessing)}, and more than {percent(1.5 * guessing)} counts as learned"
    lines = []
    if flat:
        best = max(run.accuracy or 0 for cell in flat for run in _flat_runs(cell))
        lines.append(f"{places(flat)} did not learn: at most {percent(best)} validation accuracy, where {scale}.")
    reasons: dict[str, list[Cell]] = {}
    for cell in flat:
        reasons.setdefault(_reason(cell, grid), []).append(cell)
    lines += [f"{'Why' if len(reasons) == 1 else places(cells)}: {why}" for why, cells in reasons.items()]
    lines += weak_signal(grid)
    if unclear:
        lines.append(f"{places(unclear)} {UNCLEAR}.")
    if diverged:
        remedy = f"a lower lr than {grid.settings.lr:g} is the usual remedy"
        lines.append(f"{places(diverged)} diverged: a loss was no longer a finite number; {remedy}.")
    finished = [run for run in grid.runs if run.is_finished]
    if finished and all(run.verdict == "learned" for run in finished):
        which = "Every training" if len(finished) == len(grid.runs) else "Every finished training"
        lowest = above(min(run.accuracy or 0 for run in finished), 1.5 * guessing)
        lines.append(f"{which} learned: the lowest validation accuracy is {lowest}; {scale}.")
    lines += [f"{cell.label}: {cell.verdict}." for cell in grid.cells if len(cell.counts) > 1]
    lines += [
        f"{cell.label}{_seed(run, cell)} failed: {run.failure}" for cell, run in _each(grid) if run.failure is not None
    ]
    lines += [
        f"{cell.label}{_seed(run, cell)} is {run.progress}, best validation accuracy so far: {percent(run.accuracy)}."
        for cell, run in _each(grid)
        if _is_partial(run)
    ]
    if missing := [cell for cell in grid.cells if cell.state == "unfinished" and not any(map(_is_partial, cell.runs))]:
        lines.append(f"{places(missing)} {be(missing)} unfinished.")
    if unknown:
        lines.append(f"{places(unknown)} cannot be judged: without accuracies in the result file.")
    return lines + expectations(grid)


def tried(grid: Grid, others: Sequence[Grid]) -> list[str]:
    """What other grids gave on the same K and L."""
    flat = [cell for cell in grid.cells if cell.state == "did not learn"]
    lines = [REMEDIES] if any(_lost_signal(cell, grid) for cell in flat) else []
    ours = {(cell.k, cell.depth): cell for cell in grid.cells}
    is_tried = False
    for other in others:
        same = [(ours[place], cell) for cell in other.cells if (place := (cell.k, cell.depth)) in ours]
        is_tried |= any(mine in flat for mine, _ in same)
        keys = differing([other.conditions, grid.conditions])
        names = variant(other.conditions, keys), variant(grid.conditions, keys)
        lines += _comparison(*names, [pair for pair in same if pair[1].finished])
    if flat and not is_tried:
        lines.append("Nothing else was tried in this sweep on the cells that did not learn.")
    return lines


def expectations(grid: Grid) -> list[str]:
    """How often the diagnosis was right, and where it was wrong or undecided; nothing where no file has one."""
    pairs = [(cell, run) for cell, run in _each(grid) if run.expected and run.verdict in _OUTCOMES]
    decided = [(cell, run) for cell, run in pairs if run.expected != "at risk"]
    wrong = [(cell, run) for cell, run in decided if run.expected != _OUTCOMES[run.verdict]]
    undecided = [(cell, run) for cell, run in pairs if run.expected == "at risk"]
    sentences = []
    if decided:
        right = f"{len(decided) - len(wrong)} of {counted(len(decided), 'training')}"
        sentences.append(f"The diagnosis before the training was right on {right}.")
    for expected, verb in (("will not learn", "learned"), ("trains", "did not learn")):
        if cells := dict.fromkeys(cell for cell, run in wrong if run.expected == expected):
            sentences.append(f"Contrary to it, {places(list(cells))} {verb}.")
    if undecided:
        learned = sum(run.verdict == "learned" for _, run in undecided)
        cells = dict.fromkeys(cell for cell, _ in undecided)
        sentences.append(
            f"{'It' if sentences else 'The diagnosis before the training'} called {places(list(cells))} at risk; "
            f"{learned} of {counted(len(undecided), 'training')} learned."
        )
    return [" ".join(sentences)] if sentences else []


def weak_signal(grid: Grid) -> list[str]:
    """How little the scores of images differed before the training, if that sets apart the cells that did not learn."""
    spreads = {
        verdict: [run.score_spread for run in grid.runs if run.verdict == verdict and run.score_spread is not None]
        for verdict in ("did not learn", "learned")
    }
    if not all(spreads.values()):
        return []
    most, least = max(spreads["did not learn"]), min(spreads["learned"])
    if float(f"{most:.1e}") >= float(f"{least:.1e}"):
        return []
    return [
        f"Before the training, the scores of different images differed by at most {most:.1e} in the networks that did "
        f"not learn, and by at least {least:.1e} in those that learned."
    ]


def confusions(grid: Grid) -> list[str]:
    """One line for each network that learned and confuses something.

    Example:
        `K = 16, L = 4: takes 48 % of circle for square, 41 % of ring for frame and 22 % of frame for ring.`
    """
    pairs = [(cell, _confused(cell)) for cell in grid.cells]
    return [f"{cell.label}: takes {listed(found)}." for cell, found in pairs if found]


def _confused(cell: Cell) -> list[str]:
    """What is confused most often, by its percentage of the class, over all runs of a cell that learned."""
    found = [(names, counts) for run in cell.runs if run.verdict == "learned" for names, counts in _confusion(run)]
    if not found or any(names != found[0][0] for names, _ in found):
        return []
    names = found[0][0]
    total = np.sum([counts for _, counts in found], axis=0)
    percentages = 100 * total / total.sum(axis=1, keepdims=True).clip(min=1)
    np.fill_diagonal(percentages, 0)
    order = np.argsort(-percentages, axis=None, kind="stable")[:_PAIRS]
    places = [divmod(int(place), len(names)) for place in order if percentages.flat[place] >= _LEAST_PERCENT]
    return [f"{percentages[i, j]:.0f} % of {names[i]} for {names[j]}" for i, j in places]


def _confusion(run: Run) -> list[tuple[list[str], NDArray[np.float64]]]:
    """Class names, and test images by true and by predicted class (classes, classes), if the file tells."""
    names = run.facts.get("class_names")
    try:
        counts = np.array(run.facts.get("confusion"))
    except ValueError:  # rows of several lengths
        return []
    if not (isinstance(names, list) and counts.dtype.kind == "i" and counts.shape == (len(names), len(names))):
        return []
    return [(names, counts.astype(float))] if (counts >= 0).all() else []


def _reason(cell: Cell, grid: Grid) -> str:
    """Why a cell did not learn, as far as its result files tell, in sentences that hold for all cells alike."""
    classes, settings = cell.settings.data.classes, cell.settings
    losses = _losses(cell)
    if not losses:
        return "the result file has no training loss, so it does not tell."
    low, high = min(losses), max(losses)
    if not _stayed_at_guessing(cell):
        if high < low * (1 + _STILL):
            return f"the training loss stayed between {low:.3f} and {high:.3f}; the result files do not tell more."
        fitted = max(
            (accuracy for run in _flat_runs(cell) if run.history for accuracy in run.history.train_acc), default=0.0
        )
        return (
            f"the training loss changed, between {high:.3f} and {low:.3f}, and the training accuracy reached "
            f"{fitted:.1f} %, so the weights do get a gradient; look at lr, reg and the number of images."
        )
    stayed = (
        f"the training loss stayed at that of guessing, ln {classes} = {math.log(classes):.3f}, in every epoch, "
        f"so the scores do not depend on the image."
    )
    if any(map(is_network, grid.conditions)):
        return f"{stayed} The result files do not tell more of a network that is not ours."
    batches = max(len(run.history.train_loss) for run in _flat_runs(cell) if run.history)
    if batches < _FEW_BATCHES:
        return f"{stayed} It trained on {batches} batches, too few to tell why."
    if settings.ycn:
        return f"{stayed} YourCodeNet is built to keep its signal; look at lr and reg."
    if not _lost_signal(cell, grid):
        return f"{stayed} No shallower network of the same K learned, so this sweep does not tell whether depth is why."
    if settings.init != "default":
        return f"{stayed} The initialisation is one that keeps the signal of ReLU networks, so look at lr and reg."
    until = "weight decay outweighs it" if settings.reg > 0 else "too little is left"
    return (
        f"{stayed} The likely cause is the initialisation: with PyTorch's default, each conv layer and its ReLU shrink "
        f"the differences between images, and the gradient on its way back, until {until}."
    )


def _comparison(theirs: str, ours: str, pairs: Sequence[tuple[Cell, Cell]]) -> list[str]:
    """What another grid gave on the cells that both have."""
    lines = []
    if flat := [other for mine, other in pairs if mine.state == "did not learn"]:
        rescued = [other for other in flat if other.state == "learned"]
        values = f": {', '.join(f'{percent(cell.accuracy)} ({cell.label})' for cell in rescued)}" if rescued else ""
        of = f"{len(rescued)} of {counted(len(flat), 'cell')}"
        lines.append(f"With {theirs}, {of} learned that did not with {ours}{values}.")
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


def _lost_signal(cell: Cell, grid: Grid) -> bool:
    """Whether depth explains that a cell did not learn: its scores ignore the image, and a shallower one learned."""
    if cell.settings.ycn or any(map(is_network, grid.conditions)) or not _stayed_at_guessing(cell):
        return False
    return any(other.state == "learned" and other.k == cell.k and other.depth < cell.depth for other in grid.cells)


def _stayed_at_guessing(cell: Cell) -> bool:
    losses, guessing = _losses(cell), math.log(max(cell.settings.data.classes, 2))
    return bool(losses) and all(abs(loss / guessing - 1) < _AT_GUESSING for loss in losses)


def _losses(cell: Cell) -> list[float]:
    """The mean training loss of every epoch of the runs that did not learn."""
    histories = [run.history for run in _flat_runs(cell) if run.history]
    return [loss for fit in histories for loss in epoch_means(fit.train_loss, fit.num_epochs)]


def _flat_runs(cell: Cell) -> list[Run]:
    return [run for run in cell.runs if run.verdict == "did not learn"]


def _each(grid: Grid) -> Iterable[tuple[Cell, Run]]:
    return [(cell, run) for cell in grid.cells for run in cell.runs]


def _is_partial(run: Run) -> bool:
    return run.verdict == "unfinished" and run.accuracy is not None


def _seed(run: Run, cell: Cell) -> str:
    return f", seed {run.settings.seed}" if len(cell.runs) > 1 else ""
