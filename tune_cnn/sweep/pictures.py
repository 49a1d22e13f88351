"""Confusion matrix and misclassified images of a finished trial, as pictures for TensorBoard."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tune_cnn.data import ImageSet
from tune_cnn.plot import literal, own_style
from tune_cnn.trial import Trial

_CARD = 3.45  # inches of 100 pixels; TensorBoard scales each picture to the width of its cards
_MOST_CLASSES = 12  # of a confusion matrix with numbers
_COLUMNS, _MOST_SHOWN = 4, 20  # misclassified images


def pictures(trial: Trial) -> dict[str, NDArray[np.uint8]]:
    """The pictures of a trial that has been tested, by tag: RGB (height, width, 3)."""
    assert trial.test_predictions is not None
    classes, test, predictions = trial.images.classes, trial.images.test, trial.test_predictions
    drawn = {}
    if trial.confusion is not None:
        drawn["test/confusion"] = confusion_matrix(trial.confusion, classes)
    if (predictions != test.labels).any():
        drawn["test/misclassified"] = misclassified(test, predictions, classes)
    return drawn


def confusion_matrix(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Draw the predicted classes (columns) of each true class (row), in percent of the row, from numbers of images."""
    counts = np.array(confusion)
    percent = 100 * counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    names = [_short(name) for name in classes]
    side = max(_CARD, 0.9 + 0.09 * len(names))
    points = min(8, 0.8 * 72 * (side - 0.9) / len(names))
    with own_style():
        fig = Figure((side, side), layout="constrained")
        ax = fig.subplots()
        ax.imshow(percent**0.5, "Blues", vmin=0, vmax=10)  # the square root makes small percentages visible
        ax.set_title("% of each true class (row) by prediction (column)", fontsize=8)
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=points)
        ax.set_yticks(range(len(names)), names, fontsize=points)
        ax.tick_params(length=0)
        for (row, column), value in np.ndenumerate(percent):
            if value >= 0.5 and len(names) <= _MOST_CLASSES:
                ax.text(column, row, f"{value:.0f}", size=8, ha="center", va="center", color="w" if value > 36 else "k")
        return _pixels(fig)


def misclassified(test: ImageSet, predictions: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Draw some misclassified test images, spread evenly over all of them; `predictions` are classes (N,)."""
    wrong = np.flatnonzero(predictions != test.labels)
    shown = wrong[np.linspace(0, len(wrong) - 1, min(_MOST_SHOWN, len(wrong))).round().astype(int)]
    rows = -(-len(shown) // _COLUMNS)
    with own_style():
        fig = Figure((_CARD, 0.25 + 1.2 * rows))
        fig.suptitle(
            f"{len(shown)} of the {len(wrong)} misclassified of {test.count} test images", size=8, y=1, va="top"
        )
        ax = fig.add_axes((0.01, 0, 0.98, 1.2 * rows / (0.25 + 1.2 * rows)))
        ax.axis("off")
        for place, index in enumerate(shown):
            y, x = divmod(place, _COLUMNS)
            image = np.broadcast_to(test.images[index], (*test.images.shape[1:3], 3))
            ax.imshow(image, extent=(x, x + 0.94, 1.4 * y + 0.94, 1.4 * y), interpolation="nearest")
            ax.text(x, 1.4 * y + 0.96, _short(classes[test.labels[index]]), size=8, va="top")
            ax.text(x, 1.4 * y + 1.13, _short(f"as {classes[predictions[index]]}"), size=8, va="top", color="tab:red")
        ax.set(xlim=(0, _COLUMNS), ylim=(1.4 * rows, 0))
        return _pixels(fig)


def _pixels(fig: Figure) -> NDArray[np.uint8]:
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _short(name: str) -> str:
    return literal(name if len(name) <= 12 else f"{name[:11]}…")
