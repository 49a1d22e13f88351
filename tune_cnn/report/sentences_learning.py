"""Sentences on learning: which networks did not learn and why, what the diagnosis expected, and what helped."""

import math
from collections.abc import Sequence
from statistics import fmean

from tune_cnn.report.grids import Cell, Grid, known
from tune_cnn.report.runs import Run
from tune_cnn.report.wording import differing, is_network, percent, places, variant
from tune_cnn.texts import counted
from tune_cnn.train_results import epoch_means

# Relative distance from ln(classes) up to which a loss means that the logits do not depend on the image.
_AT_GUESSING = 0.01
_FEW_BATCHES = 30  # with fewer, a network that would learn may not have begun to
_OUTCOMES = {"learned": "trains", "did not learn": "will not learn", "diverged": "will not learn"}

REMEDIES = (
    "Two things keep the signal: an initialisation made for ReLU (He et al., 2015), or batch normalisation with skip "
    "connections, as in YourCodeNet (ycn: true)."
)


def not_learned(grid: Grid) -> list[str]:
    """Say which cells did not learn and why, which diverged, and how often the diagnosis was right."""
    flat, diverged = ([cell for cell in grid.cells if cell.state == state] for state in ("did not learn", "diverged"))
    lines = []
    if flat:
        runs = [run for cell in flat for run in _flat_runs(cell)]
        best = max(run.accuracy or 0 for run in runs)
        who, accuracy = runs[0].blind
        counts = f"more than {percent(runs[0].learned_above)} counts as learned"
        if runs[0].learned_above >= 100:
            counts = f"{runs[0].validation_images} validation images are too few to tell learning from luck"
        lines.append(
            f"{places(flat)} did not learn: at most {percent(best)} validation accuracy, where {who} gives "
            f"{percent(accuracy)}, and {counts}."
        )
    reasons: dict[str, list[Cell]] = {}
    for cell in flat:
        reasons.setdefault(_reason(cell, grid), []).append(cell)
    lines += [f"{'Why' if len(reasons) == 1 else places(cells)}: {why}" for why, cells in reasons.items()]
    lines += weak_signal(grid)
    if diverged:
        lines.append(f"{places(diverged)} diverged: a loss was no longer a finite number; a lower lr may help.")
    finished = [run for run in grid.runs if run.is_finished]
    if finished and all(run.verdict == "learned" for run in finished):
        lines.append(f"Every {'' if len(finished) == len(grid.runs) else 'finished '}training learned.")
    lines += [f"{cell.label}: {cell.verdict}." for cell in grid.cells if len(cell.counts) > 1]
    return lines + expectations(grid)


def tried(grid: Grid, others: Sequence[Grid]) -> list[str]:
    """Say what would help, and what those grids reached in the same cells that differ in the fewest settings."""
    lines = [REMEDIES] if any(_lost_signal(cell, grid) for cell in grid.cells) else []
    ours = {cell.label: cell for cell in grid.cells}
    compared = [(differing([other.conditions, grid.conditions]), other) for other in others]
    fewest = min((len(keys) for keys, _ in compared), default=0)
    for keys, other in compared:
        if len(keys) == fewest:
            pairs = [(ours[cell.label], cell) for cell in other.cells if cell.label in ours and cell.finished]
            lines += _comparison(variant(other.conditions, keys), variant(grid.conditions, keys), pairs)
    return lines


def expectations(grid: Grid) -> list[str]:
    """Say how often the diagnosis was right, and where it was wrong; nothing if it predicted nothing."""
    wrong, decided = [], 0
    for cell in grid.cells:
        predicted = [run for run in cell.runs if run.expected in _OUTCOMES.values() and run.verdict in _OUTCOMES]
        wrong += [cell for run in predicted if run.expected != _OUTCOMES[run.verdict]]
        decided += len(predicted)
    right = f"{decided - len(wrong)} of {counted(decided, 'training')}"
    but = f", and wrong on {places(list(dict.fromkeys(wrong)))}" if wrong else ""
    return [f"The diagnosis before the training was right on {right}{but}."] if decided else []


def weak_signal(grid: Grid) -> list[str]:
    """Say how small the logit spread was before the training, if that separates the cells that did not learn."""
    flat, learned = (
        known(run.score_spread for run in grid.runs if run.verdict == verdict)
        for verdict in ("did not learn", "learned")
    )
    if not flat or not learned or float(f"{max(flat):.1e}") >= float(f"{min(learned):.1e}"):
        return []
    return [
        f"Before the training, the scores of different images differed by at most {max(flat):.1e} in the networks that "
        f"did not learn, and by at least {min(learned):.1e} in those that learned."
    ]


def _reason(cell: Cell, grid: Grid) -> str:
    """Why a cell did not learn, as far as its result files show, in sentences that other cells may share."""
    runs, losses = _flat_runs(cell), _losses(cell)
    if not losses:
        return "the result file has no training loss, so the cause is unknown."
    if not _stayed_at_guessing(cell):
        fitted = max((accuracy for run in runs if run.history for accuracy in run.history.train_acc), default=0.0)
        return (
            f"the training loss was between {min(losses):.3f} and {max(losses):.3f}, and the training accuracy reached "
            f"{fitted:.1f} %; look at lr, reg and the number of images."
        )
    classes = cell.settings.data.classes
    stayed = (
        f"the training loss stayed at that of guessing, ln {classes} = {math.log(classes):.3f}, in every epoch, "
        f"so the scores do not depend on the image."
    )
    if _lost_signal(cell, grid):
        until = "weight decay outweighs it" if cell.settings.reg > 0 else "too little is left"
        return (
            f"{stayed} The likely cause is the initialisation: with PyTorch's default, each conv layer and its ReLU "
            f"shrink the differences between images, and the gradient on its way back, until {until}."
        )
    expected = [run.part("diagnosis").get("reason") for run in runs if run.expected in ("at risk", "will not learn")]
    if expected and isinstance(expected[0], str):
        return f"{stayed} {expected[0]}"
    return f"{stayed} The results do not show the cause; look at depth, initialisation, lr, reg and number of batches."


def _comparison(theirs: str, ours: str, pairs: Sequence[tuple[Cell, Cell]]) -> list[str]:
    """Compare another grid with this one on the cells that both have."""
    lines = []
    if flat := [other for mine, other in pairs if mine.state == "did not learn"]:
        rescued = [other for other in flat if other.state == "learned"]
        values = f": {', '.join(f'{percent(cell.accuracy)} ({cell.label})' for cell in rescued)}" if rescued else ""
        cells = counted(len(flat), "cell")
        lines.append(f"Of {cells} that did not learn with {ours}, {len(rescued)} learned with {theirs}{values}.")
    both = [(mine, other) for mine, other in pairs if mine.state == other.state == "learned"]
    gains = [other.accuracy.value - mine.accuracy.value for mine, other in both if mine.accuracy and other.accuracy]
    if gains:
        spread = f"on average ({min(gains):+.1f} to {max(gains):+.1f}, {counted(len(gains), 'cell')})"
        lines.append(f"Where both learned, {theirs} differs from {ours} by {fmean(gains):+.1f} points {spread}.")
    return lines


def _lost_signal(cell: Cell, grid: Grid) -> bool:
    """Whether depth explains why a cell did not learn: its logits ignore the image, and a shallower network learned.

    This holds for ConvClassifier with PyTorch's initialisation, unless the diagnosis found enough signal.
    """
    runs, settings = _flat_runs(cell), cell.settings
    batches = max((len(run.history.train_loss) for run in runs if run.history), default=0)
    if settings.ycn or settings.init != "default" or any(map(is_network, cell.runs[0].told)):
        return False
    if batches < _FEW_BATCHES or not _stayed_at_guessing(cell) or any(run.expected == "trains" for run in runs):
        return False
    return any(
        other.state == "learned"
        and other.level("K") == cell.level("K")
        and other.settings.layers_per_block < settings.layers_per_block
        for other in grid.cells
    )


def _stayed_at_guessing(cell: Cell) -> bool:
    losses, guessing = _losses(cell), math.log(max(cell.settings.data.classes, 2))
    return bool(losses) and all(abs(loss / guessing - 1) < _AT_GUESSING for loss in losses)


def _losses(cell: Cell) -> list[float]:
    """The mean training loss of every epoch of the runs that did not learn."""
    histories = [run.history for run in _flat_runs(cell) if run.history]
    return [loss for fit in histories for loss in epoch_means(fit.train_loss, fit.num_epochs)]


def _flat_runs(cell: Cell) -> list[Run]:
    return [run for run in cell.runs if run.verdict == "did not learn"]
