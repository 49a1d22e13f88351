"""Confusion matrix and misclassified images of a finished trial for TensorBoard, drawn in its process with Pillow."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tune_cnn.data import ImageSet
from tune_cnn.texts import printable
from tune_cnn.trial import Trial

_PAPER, _INK, _LINE, _WRONG = (255, 255, 255), (30, 30, 30), (200, 200, 200), (178, 24, 43)
_DARKEST = (8, 69, 148)  # of a confusion matrix: 100 % of a class
# In pixels. TensorBoard scales each picture, letters included, to the width of its cards, `_CARD`.
_CARD = 345
_TEXT, _MARGIN = 13, 5
_CELL = 24  # of a confusion matrix
_TILE = 80  # of a misclassified image
_SHOWN = (4, 5)  # columns and rows of misclassified images


def pictures(trial: Trial) -> dict[str, Image.Image]:
    """The pictures of a trial that has been tested, by tag."""
    assert trial.test_predictions is not None
    classes, test, predictions = trial.images.classes, trial.images.test, trial.test_predictions
    drawn = {}
    if trial.confusion is not None:
        drawn["test/confusion"] = confusion_matrix(trial.confusion, classes)
    if (predictions != test.labels).any():
        drawn["test/misclassified"] = misclassified(test, predictions, classes)
    return drawn


def confusion_matrix(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Image.Image:
    """Draw the predicted classes (columns) of each true class (row), in percent of the row, from numbers of images."""
    counts = np.array(confusion)
    percent = 100 * counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    cell = max(9, min(_CELL, 600 // len(classes)))  # pixels
    font = _font(min(_TEXT, cell - 1))
    upwards = ImageFont.TransposedFont(font, Image.Transpose.ROTATE_90)
    names = [_fitting(name, font, _TILE) for name in classes]
    label = round(max(map(font.getlength, names))) + _MARGIN
    left, top = _MARGIN + label, 2 * _MARGIN + _TEXT + label
    extent = len(names) * cell + _MARGIN
    picture = Image.new("RGB", (max(_CARD, left + extent), top + extent), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, _MARGIN), "% of each true class (row) by prediction (column)", _INK, _font(_TEXT))
    for row, name in enumerate(names):
        y = top + row * cell
        draw.text((left - _MARGIN / 2, y + cell / 2), name, _INK, font, anchor="rm")
        _, _, width, height = upwards.getbbox(name)
        draw.text((left + row * cell + (cell - width) // 2, top - _MARGIN // 2 - height), name, _INK, upwards)
        for column, value in enumerate(percent[row]):
            x = left + column * cell
            # The square root makes small percentages visible.
            share = (value / 100) ** 0.5
            colour = tuple(round(a + share * (b - a)) for a, b in zip(_PAPER, _DARKEST, strict=True))
            draw.rectangle((x, y, x + cell, y + cell), fill=colour, outline=_LINE)
            if cell == _CELL and value >= 0.5:
                ink = _PAPER if share > 0.6 else _INK
                draw.text((x + cell / 2, y + cell / 2), f"{value:.0f}", ink, font, anchor="mm")
    return picture


def misclassified(test: ImageSet, predictions: NDArray[np.int64], classes: Sequence[str]) -> Image.Image:
    """Draw some misclassified test images, spread evenly over all of them; `predictions` are classes (N,)."""
    wrong = np.flatnonzero(predictions != test.labels)
    columns, rows = _SHOWN
    shown = wrong[np.linspace(0, len(wrong) - 1, min(columns * rows, len(wrong))).round().astype(int)]
    font = _font(_TEXT)
    width, height = _TILE + _MARGIN, _TILE + 2 * _TEXT + 2 * _MARGIN
    head = _TEXT + 2 * _MARGIN
    rows = -(-len(shown) // columns)
    picture = Image.new("RGB", (columns * width + _MARGIN, head + rows * height), _PAPER)
    draw = ImageDraw.Draw(picture)
    title = f"{len(shown)} of the {len(wrong)} misclassified of {test.count} test images"
    draw.text((_MARGIN, _MARGIN), title, _INK, font)
    for place, index in enumerate(shown):
        x, y = _MARGIN + place % columns * width, head + place // columns * height
        image = test.images[index]
        tile = Image.fromarray(image if image.shape[2] > 1 else image[..., 0])
        picture.paste(tile.resize((_TILE, _TILE), Image.Resampling.NEAREST), (x, y))
        true, taken = classes[test.labels[index]], f"as {classes[predictions[index]]}"
        draw.text((x, y + _TILE + 2), _fitting(true, font, _TILE), _INK, font)
        draw.text((x, y + _TILE + 2 + _TEXT), _fitting(taken, font, _TILE), _WRONG, font)
    return picture


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, truncated with an ellipsis to `width` pixels."""
    shown = printable(text)[:width]
    while shown and font.getlength(shown) > width:
        shown = shown.removesuffix("…")[:-1] + "…" * (len(shown) > 1)
    return shown
