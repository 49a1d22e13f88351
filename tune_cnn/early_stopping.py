"""The rule that ends a training (after its last epoch, early, or because it diverged), and its words."""

from tune_cnn.texts import counted
from tune_cnn.train_results import FitResult


def stop_reason(history: FitResult, epochs: int, early_stopping: int | None) -> str | None:
    """Why a training ends now: it has run `epochs` epochs, or `early_stopping` of them without a better accuracy.

    Returns:
        `diverged` (a loss is not a finite number), `plateau`, `epochs`, or None if the training goes on.
    """
    if not history.is_finite:
        return "diverged"
    if early_stopping is not None and history.num_epochs > 0 and history.epochs_without_improvement >= early_stopping:
        return "plateau"
    return "epochs" if history.num_epochs >= epochs else None


def until_stop(history: FitResult, epochs: int, early_stopping: int | None) -> FitResult:
    """The history up to the epoch after which `stop_reason` would have ended the training."""
    for epoch in range(1, history.num_epochs):
        accuracies = FitResult(epoch, [], [], [], history.test_acc[:epoch])  # only the last epoch can have diverged
        if stop_reason(accuracies, epochs, early_stopping) is not None:
            return history.first(epoch)
    return history


def how_ended(
    reason: str | None, epochs_run: int, epochs: int, early_stopping: int | None, failure: str | None = None
) -> str:
    """How a training ended, in words: its `stop_reason`, or how far it has got if unfinished, or why it failed.

    >>> how_ended("epochs", 8, 8, 5), how_ended(None, 3, 30, 5)
    ('finished 8 of 8 epochs', 'unfinished: 3 of 30 epochs')
    """
    if failure is not None:
        return f"failed: {failure}"
    of_epochs = f"{epochs_run} of {counted(epochs, 'epoch')}"
    return {
        None: f"unfinished: {of_epochs}",
        "epochs": f"finished {of_epochs}",
        "plateau": f"stopped early: no better for {counted(early_stopping or 0, 'epoch')}",
        "scheduler": f"stopped by the scheduler after {of_epochs}",
        "diverged": "diverged: the loss is not a finite number",
    }.get(reason) or str(reason)
