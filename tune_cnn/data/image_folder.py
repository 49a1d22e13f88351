"""A folder of images, a folder for each class."""

from dataclasses import replace

import numpy as np

from tune_cnn.data.decoding import decode, read_images
from tune_cnn.data.folder_listing import Folder, list_folder
from tune_cnn.data.source import Found, ImageSet, Source, absolute, choose, split
from tune_cnn.errors import DataError
from tune_cnn.settings import DataSettings


class ImageFolder(Source):
    """Folders `train/` and `test/`, each with a folder of images for each class."""

    # By path and fingerprint, so that a folder is listed once to plan with it and once to read it.
    _known: dict[tuple[str, str | None], Found] = {}

    @property
    def root(self) -> str:
        """The folder's absolute path."""
        if self.data.path is None:
            raise DataError("data: image_folder needs its folder; write image_folder:/path/to/images")
        return absolute(self.data.path)

    def find(self) -> Found:
        """What lies in the folder now, or did when it was resolved."""
        known = self._known.get((self.root, self.data.fingerprint))
        return known or self._list()[1]

    def resolve(self) -> DataSettings:
        """With the folder's fingerprint, its classes and its absolute path."""
        folder, found = self._list()
        choose(self.data, found)  # complains of counts that are too high
        return replace(self.data, path=self.root, classes=found.classes, fingerprint=folder.fingerprint)

    def read(self, progress: bool = False, download: bool = True) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
        """Decode the images, or take them as decoded the last time."""
        folder, found = self._list()
        if self.data.fingerprint not in (None, folder.fingerprint):
            raise DataError(
                f"{self.root}: these are not the images that the training was planned with (fingerprint "
                f"{folder.fingerprint}, not {self.data.fingerprint}); restore the folder, or start a new training"
            )
        train, test = choose(self.data, found)
        files = [folder.train[index] for index in train] + [folder.test[index] for index in test]
        images = read_images(files, *self.data.in_size[1:], progress)
        both = ImageSet(images, np.array([file.label for file in files], np.int64))
        fitted, tested = (both.take(indices) for indices in np.split(np.arange(len(files)), [len(train)]))
        return fitted, tested, folder.classes

    def first(self, count: int, download: bool) -> tuple[ImageSet, int]:
        """Decode the first ones only, unless they must be scaled by the values of all."""
        folder, found = self._list()
        chosen, _ = choose(self.data, found)
        fitted, _ = split(len(chosen))
        files = [folder.train[index] for index in chosen[fitted[:count]]]
        try:
            images, scaled = decode(files, *self.data.in_size[1:])
        except DataError:
            scaled = True  # all are decoded, so that all that are broken are named
        if scaled:
            return super().first(count, download)
        return ImageSet(images, np.array([file.label for file in files], np.int64)), len(fitted)

    def _list(self) -> tuple[Folder, Found]:
        folder = list_folder(self.root)
        counts = len(folder.train), len(folder.test), len(folder.classes)
        found = Found(self.root, *counts, folder.classes, folder.left_out)
        self._known[self.root, folder.fingerprint] = found
        return folder, found
