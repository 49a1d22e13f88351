"""Base class of image sources. A new source also needs a row in `data.SOURCES` and in `settings.data.SOURCES`."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tune_cnn.errors import DataError
from tune_cnn.settings import DataSettings

VALIDATION_SHARE = 0.15

Indices = NDArray[np.int64]


class ImageSet(NamedTuple):
    """Images, uint8 (N, H, W, C) and C-contiguous, and their labels, int64 (N,).

    NumPy rather than PyTorch, since Ray shares NumPy arrays between processes without copying; those are read-only.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def count(self) -> int:  # type: ignore[override]
        """Number of images."""
        return len(self.labels)

    def take(self, indices: Indices | list[int]) -> "ImageSet":
        """Copy the images and labels at `indices`."""
        return ImageSet(self.images[indices], self.labels[indices])


class Found(NamedTuple):
    """What a source has, as known without decoding or downloading any image."""

    place: str  # where the images lie, for messages
    train: int  # number of training images, including those for validation
    test: int  # number of test images
    classes: int  # number of classes
    names: tuple[str, ...] = ()  # of the classes, if known before the images are read
    left_out: Sequence[str] = ()  # what is there but not used, one phrase per kind
    # Settings that only the images determine, besides the number of classes. The `fingerprint`, 16 hex digits,
    # identifies the images, wherever they lie.
    settings: Mapping[str, Any] = {}


class Source(ABC):
    """Source of images, made from their settings, resolved or not; `SOURCES` lists all sources."""

    default_path = ""

    def __init__(self, data: DataSettings) -> None:
        self.data = data

    @property
    def path(self) -> str:
        """Absolute path of the images, valid even if the working folder changes."""
        return os.path.abspath(os.path.expanduser(self.data.path or self.default_path))

    @abstractmethod
    def inspect(self) -> Found:
        """Find out what there is now; a DataError if the images are missing or unfit."""

    @abstractmethod
    def read(self, progress: bool = False, download: bool = True) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
        """Read the chosen training and test images, and the names of the classes; see `data.load`."""

    def first(self, count: int, download: bool) -> tuple[ImageSet, int]:
        """Read the first images of the training set, and its size; see `data.first_images`."""
        train, _, _ = self.read(download=download)
        fitted, _ = split(train.count)
        return train.take(fitted[:count]), len(fitted)

    def check_unchanged(self, found: Found) -> None:
        """Raise a DataError if the images have changed since the settings were resolved."""
        if self.data.fingerprint not in (None, there := found.settings["fingerprint"]):
            raise DataError(
                f"{found.place}: these are not the images that the training was planned with (fingerprint "
                f"{there}, not {self.data.fingerprint}); restore them, or start a new training"
            )


def choose(data: DataSettings, found: Found) -> tuple[Indices, Indices]:
    """Indices of the training and the test images to take, in order: all, or a random choice that is always the same.

    It raises a DataError if there are fewer images than asked for.
    """
    chosen = []
    for key, count in (("train_images", found.train), ("test_images", found.test)):
        wanted = getattr(data, key)
        if wanted is not None and wanted > count:
            raise DataError(f"{found.place}: data.{key} asks for {wanted} of {count} images; ask for {count} at most")
        chosen.append(np.sort(np.random.RandomState(0).permutation(count)[:wanted]))
    return chosen[0], chosen[1]


def split(count: int) -> tuple[Indices, Indices]:
    """Split `count` images into indices for training and for validation.

    Same split as scikit-learn's `train_test_split(test_size=0.15, random_state=0)`.
    """
    order = np.random.RandomState(0).permutation(count)
    validation_count = math.ceil(VALIDATION_SHARE * count)
    return order[validation_count:], order[:validation_count]
