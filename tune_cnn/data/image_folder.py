"""Images in a folder, with a subfolder for each class."""

from collections.abc import Sequence

import numpy as np

from tune_cnn.data.decoding import ImageFile, decode, read_images
from tune_cnn.data.folder_listing import list_folder
from tune_cnn.data.source import Found, ImageSet, Indices, Source, choose, split
from tune_cnn.errors import DataError


class ImageFolder(Source):
    """Folders `train/` and `test/`, both with one subfolder of images per class."""

    def inspect(self) -> Found:
        """List what the folder has."""
        return list_folder(self.path)[0]

    def read(self, progress: bool = False, download: bool = True) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
        """Decode the images, or load them from the cache."""
        found, files = list_folder(self.path)
        self.check_unchanged(found)
        train, test = choose(self.data, found)
        chosen = [files[index] for index in (*train, *(found.train + test))]
        both = ImageSet(read_images(chosen, *self.data.in_size[1:], progress), _labels(chosen))
        fitted, tested = (both.take(indices) for indices in np.split(np.arange(len(chosen)), [len(train)]))
        return fitted, tested, found.names

    def first(self, count: int, download: bool) -> tuple[ImageSet, int]:
        """Decode only the first images, unless they must be scaled by the value range of all."""
        found, files = list_folder(self.path)
        train, _ = choose(self.data, found)
        fitted, _ = split(len(train))
        chosen = [files[index] for index in train[fitted[:count]]]
        try:
            images, scaled = decode(chosen, *self.data.in_size[1:])
        except DataError:
            scaled = True  # decode all, so that the error names every broken file
        if scaled:
            return super().first(count, download)
        return ImageSet(images, _labels(chosen)), len(fitted)


def _labels(files: Sequence[ImageFile]) -> Indices:
    return np.array([file.label for file in files], np.int64)
