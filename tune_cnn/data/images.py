"""The images: their sources, and the split into training and validation."""

import math
import os
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tune_cnn.data import cifar10, shapes
from tune_cnn.data.image_folder import decode, list_folder, read_images
from tune_cnn.errors import DataError
from tune_cnn.settings import DataSettings

VALIDATION_SHARE = 0.15
_SHAPES_COUNTS = (5_000, 1_000)  # images of `shapes` for training and testing, unless the settings say otherwise
_SMALLEST_SHAPE = 8

Indices = NDArray[np.int64]


class ImageSet(NamedTuple):
    """Images uint8 (N, H, W, C), C-contiguous, and their labels int64 (N,).

    NumPy and not PyTorch, since Ray shares arrays between processes without copies; those are read-only.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def count(self) -> int:  # type: ignore[override]
        """How many images."""
        return len(self.labels)


class Images(NamedTuple):
    """All the images of a training.

    Attributes:
        train: What the weights are fitted to.
        validation: What decides when to stop and which weights are best.
        test: What only the final weights are measured on.
        classes: Names of the classes; a label is an index into them.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    classes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Memory that images and labels take, in bytes."""
        return sum(array.nbytes for image_set in self[:3] for array in image_set)


def resolve(data: DataSettings) -> DataSettings:
    """Fill in what the settings leave to the images, without decoding or downloading any.

    Returns:
        The same images with `classes`, and for a folder its `fingerprint` and absolute path; for shapes their counts.

    Raises:
        DataError: A folder is missing or unfit, or has fewer images than asked for.
    """
    if data.source == "image_folder":
        path = _absolute(data.path)
        folder = list_folder(path)
        _choose(data, path, len(folder.train), len(folder.test))  # complains of counts that are too high
        return replace(data, path=path, classes=len(folder.classes), fingerprint=folder.fingerprint)
    if data.source == "shapes":
        if min(data.in_size[1:]) < _SMALLEST_SHAPE:
            least = [3, _SMALLEST_SHAPE, _SMALLEST_SHAPE]
            raise DataError(f"data.in_size: {list(data.in_size)} is too small to draw shapes; take {least} or more")
        # The counts become part of the trial's id, so that an id never follows a changed default.
        train, test = data.train_images or _SHAPES_COUNTS[0], data.test_images or _SHAPES_COUNTS[1]
        classes = len(shapes.CLASSES)
        return replace(data, path=None, train_images=train, test_images=test, classes=classes, fingerprint=None)
    root = None if data.path is None else _absolute(data.path)
    return replace(data, path=root, classes=cifar10.CLASS_COUNT, fingerprint=None)


def load(data: DataSettings, progress: bool = False) -> Images:
    """Read all images into memory; CIFAR-10 is downloaded and a folder decoded only the first time.

    Args:
        data: Which; resolved or not.
        progress: Show a progress bar on stderr while decoding.

    Raises:
        DataError: They cannot be found, read or downloaded, are fewer than asked for, or a folder has changed since
            its fingerprint was taken.
    """
    height, width = data.in_size[1:]
    if data.source == "shapes":
        data = resolve(data)
        assert data.train_images is not None
        assert data.test_images is not None
        train = shapes.draw(data.train_images, height, width, data.seed, stream=0)
        test = shapes.draw(data.test_images, height, width, data.seed, stream=1)
        return _split_off_validation(train, test, shapes.CLASSES)

    if data.source == "image_folder":
        path = _absolute(data.path)
        folder = list_folder(path)
        if data.fingerprint not in (None, folder.fingerprint):
            raise DataError(
                f"{path}: these are not the images that the training was planned with (fingerprint "
                f"{folder.fingerprint}, not {data.fingerprint}); restore the folder, or start a new training"
            )
        chosen = _choose(data, path, len(folder.train), len(folder.test))
        train, test = (
            read_images([files[index] for index in indices], height, width, progress)
            for files, indices in zip((folder.train, folder.test), chosen, strict=True)
        )
        return _split_off_validation(train, test, folder.classes)

    root = _absolute(data.path or cifar10.DEFAULT_ROOT)
    train, test, classes = cifar10.read(root)
    chosen = _choose(data, root, len(train[1]), len(test[1]))
    train, test = (
        (images[indices], labels[indices]) for (images, labels), indices in zip((train, test), chosen, strict=True)
    )
    return _split_off_validation(train, test, classes)


def first_images(data: DataSettings, count: int, download: bool = True) -> tuple[ImageSet, int]:
    """The first training images that `load` would give, without decoding the others.

    Args:
        data: Which; resolved or not.
        count: How many.
        download: Whether CIFAR-10 may be downloaded if it is not there.

    Returns:
        Them, and how many training images there are in all.

    Raises:
        DataError: As in `load`; or CIFAR-10 is not there and must not be downloaded.
    """
    if data.source == "image_folder":
        path = _absolute(data.path)
        folder = list_folder(path)
        chosen, _ = _choose(data, path, len(folder.train), len(folder.test))
        fitted, _ = split(len(chosen))
        files = [folder.train[index] for index in chosen[fitted[:count]]]
        return ImageSet(*decode(files, *data.in_size[1:])), len(fitted)
    if data.source == "cifar10":
        cifar10.read(_absolute(data.path or cifar10.DEFAULT_ROOT), download)  # complains if it is not there
    train = load(data).train
    return ImageSet(train.images[:count], train.labels[:count]), train.count


def count_images(data: DataSettings) -> tuple[int, int, int]:
    """How many images `load` would give to train, to validate and to test on, without decoding or downloading any.

    Raises:
        DataError: A folder is missing or unfit.
    """
    train, test = _SHAPES_COUNTS
    if data.source == "cifar10":
        train, test = cifar10.IMAGE_COUNTS
    if data.source == "image_folder":
        folder = list_folder(_absolute(data.path))
        train, test = len(folder.train), len(folder.test)
    fitted, validated = split(data.train_images or train)
    return len(fitted), len(validated), data.test_images or test


def nbytes(data: DataSettings) -> int:
    """Memory that the images and labels which `load` would give take, in bytes.

    Raises:
        DataError: A folder is missing or unfit.
    """
    label_bytes = np.dtype(np.int64).itemsize
    return sum(count_images(data)) * (math.prod(data.in_size) + label_bytes)


def _absolute(path: str | None) -> str:
    if path is None:
        raise DataError("data: image_folder needs its folder; write image_folder:/path/to/images")
    return os.path.abspath(os.path.expanduser(path))


def _choose(data: DataSettings, place: str, train_count: int, test_count: int) -> tuple[Indices, Indices]:
    """Which images to take for training and for testing: all, or the same random ones each time, in their order."""
    if train_count < 2:
        raise DataError(f"{place}: one training image cannot be split; add training images")
    chosen = []
    for key, count in (("train_images", train_count), ("test_images", test_count)):
        wanted = getattr(data, key)
        if wanted is not None and wanted > count:
            raise DataError(f"{place}: data.{key} asks for {wanted} of {count} images; ask for {count} at most")
        chosen.append(np.sort(np.random.RandomState(0).permutation(count)[:wanted]))
    return chosen[0], chosen[1]


def split(count: int) -> tuple[Indices, Indices]:
    """Which of `count` images are for training, and which for validation.

    It is the split of scikit-learn's `train_test_split(test_size=0.15, random_state=0)`.
    """
    order = np.random.RandomState(0).permutation(count)
    validation_count = math.ceil(VALIDATION_SHARE * count)
    return order[validation_count:], order[:validation_count]


def _split_off_validation(
    train: tuple[NDArray[np.uint8], NDArray[np.int64]],
    test: tuple[NDArray[np.uint8], NDArray[np.int64]],
    classes: tuple[str, ...],
) -> Images:
    images, labels = train
    fitted, validated = (ImageSet(images[indices], labels[indices]) for indices in split(len(labels)))
    return Images(fitted, validated, ImageSet(*test), classes)
