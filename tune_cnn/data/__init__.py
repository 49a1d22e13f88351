"""Images: their sources, the split into training and validation, batches, augmentation."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

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
    """All the images of a training."""

    train: ImageSet  # what the weights are fitted to
    validation: ImageSet  # what decides when to stop and which weights are best
    test: ImageSet  # what only the final weights are measured on
    classes: tuple[str, ...]  # their names; a label is an index into them

    @property
    def nbytes(self) -> int:
        """Memory that images and labels take, in bytes."""
        return sum(array.nbytes for image_set in self[:3] for array in image_set)


def resolve(data: DataSettings) -> DataSettings:
    """Fill in what the settings leave to the images, without decoding or downloading any.

    Returns:
        The same images with `classes`, and for a folder its `fingerprint` and absolute path; for shapes their counts.

    Raises:
        DataError: A folder is missing or unfit, or there are fewer images than asked for.
    """
    source = SOURCES[data.source](data)
    found = source.inspect()
    choose(data, found)  # complains of counts that are too high
    told = {"path": source.path if data.path else None, "fingerprint": None, **found.settings}
    resolved = replace(data, classes=found.classes, **told)
    _found[resolved] = found
    return resolved


# By resolved settings: images are looked at once to plan with them, and once to read them.
_found: dict[DataSettings, Found] = {}


def _find(data: DataSettings) -> Found:
    """What there is, or was when the settings were resolved."""
    return _found.get(data) or SOURCES[data.source](data).inspect()


def load(data: DataSettings, progress: bool = False, download: bool = True) -> Images:
    """Read all images into memory; a data set is downloaded and a folder decoded only the first time.

    `data` may be resolved or not; `progress` shows a bar on stderr while decoding.

    Raises:
        DataError: They cannot be found, read or downloaded, are fewer than asked for, or a folder has changed since
            its fingerprint was taken.
    """
    train, test, classes = SOURCES[data.source](data).read(progress, download)
    fitted, validated = split(train.count)
    return Images(train.take(fitted), train.take(validated), test, classes)


def first_images(data: DataSettings, count: int, download: bool = True) -> tuple[ImageSet, int]:
    """The first `count` training images that `load` would give, if possible without decoding the others.

    Returns:
        Them, and how many training images there are in all.

    Raises:
        DataError: As in `load`; or they are not there and must not be downloaded.
    """
    return SOURCES[data.source](data).first(count, download)


def count_images(data: DataSettings) -> tuple[int, int, int]:
    """How many images `load` would give to train, to validate and to test on; errors are those of `resolve`."""
    found = _find(data)
    fitted, validated = split(data.train_images or found.train)
    return len(fitted), len(validated), data.test_images or found.test


def nbytes(data: DataSettings) -> int:
    """Memory that the images and labels which `load` would give take, in bytes; errors are those of `resolve`."""
    label_bytes = np.dtype(np.int64).itemsize
    return sum(count_images(data)) * (math.prod(data.in_size) + label_bytes)


def describe(data: DataSettings) -> str:
    """One line for people: classes, images used for each purpose, what is left out and why; errors as in `resolve`."""
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
