"""Images: their sources, the split into training and validation, batches, augmentation."""

import math
from dataclasses import replace
from typing import NamedTuple

from tune_cnn.data.arrays import Arrays
from tune_cnn.data.downloads import DATASETS, Download
from tune_cnn.data.image_folder import ImageFolder
from tune_cnn.data.shapes import Shapes
from tune_cnn.data.source import VALIDATION_SHARE, Found, ImageSet, Source, choose, split
from tune_cnn.settings import DataSettings
from tune_cnn.texts import counted, enumerated

SOURCES: dict[str, type[Source]] = {
    "arrays": Arrays,
    "image_folder": ImageFolder,
    "shapes": Shapes,
    **dict.fromkeys(DATASETS, Download),
}


class Images(NamedTuple):
    """All images of a training."""

    train: ImageSet  # for fitting the weights
    validation: ImageSet  # for deciding when to stop and which weights are best
    test: ImageSet  # for measuring only the final weights
    classes: tuple[str, ...]  # class names; a label is an index into them

    @property
    def nbytes(self) -> int:
        """Memory of images and labels, in bytes."""
        return sum(array.nbytes for image_set in self[:3] for array in image_set)


def resolve(data: DataSettings) -> DataSettings:
    """Fill in the settings that the images determine, without decoding or downloading any.

    Returns:
        Settings with `classes`; for a folder or array file also `fingerprint` and absolute path, for shapes the counts.

    Raises:
        DataError: A folder is missing or unfit, or there are fewer images than asked for.
    """
    source = SOURCES[data.source](data)
    found = source.inspect()
    choose(data, found)  # raises if too many images are asked for
    filled_in = {"path": source.path if data.path else None, "fingerprint": None, **found.settings}
    resolved = replace(data, classes=found.classes, **filled_in)
    _found[resolved] = found
    return resolved


# By resolved settings, so that a folder is listed only twice: once to plan with it, and once to read it.
_found: dict[DataSettings, Found] = {}


def _find(data: DataSettings) -> Found:
    """What the source has, or had when the settings were resolved."""
    return _found.get(data) or SOURCES[data.source](data).inspect()


def load(data: DataSettings, progress: bool = False, download: bool = True) -> Images:
    """Read all images into memory; a data set is downloaded and a folder decoded only the first time.

    `data` may be resolved or not; `progress` shows a bar on stderr while decoding.

    Raises:
        DataError: Images cannot be found, read or downloaded, are fewer than asked for, or have changed since their
            fingerprint was taken.
    """
    train, test, classes = SOURCES[data.source](data).read(progress, download)
    fitted, validated = split(train.count)
    return Images(train.take(fitted), train.take(validated), test, classes)


def first_images(data: DataSettings, count: int, download: bool = True) -> tuple[ImageSet, int]:
    """Load the first `count` training images that `load` would return, if possible without decoding the others.

    Also returns the total number of training images. Errors are those of `load`, also if `download` is false and images
    are missing.
    """
    return SOURCES[data.source](data).first(count, download)


def count_images(data: DataSettings) -> tuple[int, int, int]:
    """Count the training, validation and test images that `load` would return; errors are those of `resolve`."""
    found = _find(data)
    fitted, validated = split(data.train_images or found.train)
    return len(fitted), len(validated), data.test_images or found.test


def nbytes(data: DataSettings) -> int:
    """Memory of the images and labels that `load` would return, in bytes; errors are those of `resolve`."""
    return sum(count_images(data)) * (math.prod(data.in_size) + 8)  # of its label


def describe(data: DataSettings) -> str:
    """Summarise in one line: classes, images by purpose, what is left out and why; errors are those of `resolve`."""
    found = _find(data)
    train, validation, test = count_images(data)
    where = data.source if found.place == data.source else f"{data.source} {found.place}"
    names = f" ({enumerated(found.names)})" if found.names else ""
    used = f"{counted(train, 'image')} to train, {validation:,} to validate, {test:,} to test"
    left_out = [
        f"{counted(there - wanted, f'{kind} image')}, by data.{kind}_images"
        for kind, there, wanted in (("train", found.train, data.train_images), ("test", found.test, data.test_images))
        if wanted is not None and wanted < there
    ] + [*found.left_out]
    line = f"data: {where}: {found.classes} classes{names}; {used}"
    return f"{line}; left out: {', '.join(left_out)}" if left_out else line
