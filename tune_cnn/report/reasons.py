"""Why a cell did not learn, as far as its result files tell."""

import math

from tune_cnn.report.cells import Cell, Grid

# How far from ln(classes), relatively, the loss of a network may be whose scores do not depend on the image.
_AT_GUESSING = 0.01
_STILL = 0.02  # how much the loss of a network may vary, relatively, that learns nothing

REMEDIES = (
    "Two things keep the signal: an initialisation made for ReLU (He et al., 2015), or batch normalisation with skip "
    "connections, as YourCodeNet has them (ycn: true)."
)


def reason(cell: Cell, grid: Grid) -> str:
    """Why a cell did not learn, in sentences that hold for all cells of the same kind.

    Args:
        cell: Its state is `did not learn`.
        grid: Where it stands.
    """
    classes = cell.settings.data.classes
    losses = _losses(cell)
    if not losses:
        return "the result file has no training loss, so it does not tell why."
    if not stayed_at_guessing(cell):
        return _moved(cell, min(losses), max(losses))
    stayed = (
        f"the training loss stayed at that of guessing, ln {classes} = {math.log(classes):.3f}, in every epoch, "
        f"so the scores tell nothing of the image."
    )
    if cell.settings.ycn:
        return f"{stayed} YourCodeNet is built to keep its signal; look at lr and reg."
    if not lost_signal(cell, grid):
        return (
            f"{stayed} No shallower network of the same K learned, so this sweep does not tell what depth does to it."
        )
    if cell.settings.init != "default":
        return f"{stayed} The initialisation is one that keeps the signal of ReLU networks, so look at lr and reg."
    until = "the pull of the weight decay is stronger" if cell.settings.reg > 0 else "too little is left"
    return (
        f"{stayed} The likely cause is the initialisation: PyTorch's default lets each conv layer and its ReLU shrink "
        f"what tells images apart, and the gradient on its way back, until {until}."
    )


def _moved(cell: Cell, low: float, high: float) -> str:
    if high < low * (1 + _STILL):
        return f"the training loss stayed between {low:.3f} and {high:.3f}; the result files do not tell why."
    fitted = max((accuracy for run in cell.finished if run.history for accuracy in run.history.train_acc), default=0.0)
    return (
        f"the training loss moved, between {high:.3f} and {low:.3f}, and the training accuracy reached {fitted:.1f} %, "
        f"so the weights do get a gradient; look at lr, reg and the number of images."
    )


def _losses(cell: Cell) -> list[float]:
    """The mean training loss of every epoch of the runs that did not learn."""
    return [loss for run in cell.finished if run.verdict == "did not learn" for loss in run.epoch_losses()]


def stayed_at_guessing(cell: Cell) -> bool:
    """Whether the mean training loss of every epoch is that of guessing, in the runs that did not learn."""
    guessing = math.log(cell.settings.data.classes)
    return all(abs(loss / guessing - 1) < _AT_GUESSING for loss in _losses(cell))


def lost_signal(cell: Cell, grid: Grid) -> bool:
    """Whether depth explains that a cell did not learn: it sees nothing of the image, and a shallower one learned."""
    if cell.settings.ycn or cell.state != "did not learn" or not stayed_at_guessing(cell):
        return False
    return any(other.state == "learned" and other.depth < cell.depth for other in grid.by_width[cell.k])
