"""Base class of the sources of images. A new one also needs a row in `data.SOURCES` and `settings.data.SOURCES`."""

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
    """Images uint8 (N, H, W, C), C-contiguous, and their labels int64 (N,).

    NumPy and not PyTorch, since Ray shares arrays between processes without copies; those are read-only.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def count(self) -> int:  # type: ignore[override]
        """How many images."""
        return len(self.labels)

    def take(self, indices: Indices | list[int]) -> "ImageSet":
        """A copy of some of the images."""
        return ImageSet(self.images[indices], self.labels[indices])


class Found(NamedTuple):
    """What a source has, told without decoding or downloading any image."""

    place: str  # where the images lie, for messages
    train: int  # training images, those for validation among them
    test: int  # test images
    classes: int  # how many
    names: tuple[str, ...] = ()  # of the classes, if they are known before the images are read
    left_out: Sequence[str] = ()  # what is there but not used, a phrase for each kind
    # What only the images tell of their settings, beside the number of classes. Their `fingerprint` is 16 hex digits
    # that tell them from others, the same wherever they lie.
    settings: Mapping[str, Any] = {}


class Source(ABC):
    """One kind of images, by their settings, resolved or not; `SOURCES` has all kinds."""

    default_path = ""

    def __init__(self, data: DataSettings) -> None:
        self.data = data

    @property
    def path(self) -> str:
        """Where the images lie, whatever the working folder becomes."""
        return os.path.abspath(os.path.expanduser(self.data.path or self.default_path))

    @abstractmethod
    def inspect(self) -> Found:
        """What there is now; a DataError if the images are missing or unfit."""

    @abstractmethod
    def read(self, progress: bool = False, download: bool = True) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
        """The chosen images for training and for testing, and the names of the classes; see `data.load`."""

    def first(self, count: int, download: bool) -> tuple[ImageSet, int]:
        """The first images of the training set and its size; see `data.first_images`."""
        train, _, _ = self.read(download=download)
        fitted, _ = split(train.count)
        return train.take(fitted[:count]), len(fitted)

    def check_unchanged(self, found: Found) -> None:
        """Raise a DataError if what there is now is not what the settings were resolved with."""
        if self.data.fingerprint not in (None, there := found.settings["fingerprint"]):
            raise DataError(
                f"{found.place}: these are not the images that the training was planned with (fingerprint "
                f"{there}, not {self.data.fingerprint}); restore them, or start a new training"
            )


def choose(data: DataSettings, found: Found) -> tuple[Indices, Indices]:
    """Which images to take for training and for testing: all, or the same random ones each time, in their order.

    Raises:
        DataError: There are too few.
    """
    chosen = []
    for key, count in (("train_images", found.train), ("test_images", found.test)):
        wanted = getattr(data, key)
        if wanted is not None and wanted > count:
            raise DataError(f"{found.place}: data.{key} asks for {wanted} of {count} images; ask for {count} at most")
        chosen.append(np.sort(np.random.RandomState(0).permutation(count)[:wanted]))
    return chosen[0], chosen[1]


def split(count: int) -> tuple[Indices, Indices]:
    """Which of `count` images are for training, and which for validation.

    It is the split of scikit-learn's `train_test_split(test_size=0.15, random_state=0)`.
    """
    order = np.random.RandomState(0).permutation(count)
    validation_count = math.ceil(VALIDATION_SHARE * count)
    return order[validation_count:], order[:validation_count]
