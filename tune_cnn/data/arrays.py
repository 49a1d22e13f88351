"""Images in NumPy arrays, from an `.npz` file."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_cnn.data.source import Found, ImageSet, Source, choose
from tune_cnn.errors import DataError
from tune_cnn.settings import DataSettings
from tune_cnn.texts import digest, enumerated, named

_NAMES = ("train_images", "train_labels", "test_images", "test_labels")


class Arrays(Source):
    """`train_images` (N, H, W, C) or (N, H, W) uint8, `train_labels` (N,) integers, `test_images`, `test_labels`."""

    def inspect(self) -> Found:
        """Read and check the file; a DataError lists every fault."""
        return self._read()[0]

    def read(self, progress: bool = False, download: bool = True) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
        """Read the arrays."""
        found, *parts = self._read()
        self.check_unchanged(found)
        train, test = (part.take(chosen) for part, chosen in zip(parts, choose(self.data, found), strict=True))
        return train, test, tuple(map(str, range(found.classes)))

    def _read(self) -> tuple[Found, ImageSet, ImageSet]:
        if not os.path.isfile(self.path):
            raise DataError(f"{self.path}: there is no such regular file; check the path of arrays")
        try:
            with np.load(self.path) as file:
                arrays = {name: file[name] for name in _NAMES}
                entries = [file.zip.getinfo(f"{name}.npy") for name in _NAMES]
        except Exception as error:  # of any kind, where the file is damaged
            remedy = f"write {', '.join(_NAMES)} with numpy.savez"
            raise DataError(f"{self.path}: cannot be read ({named(error)}); {remedy}") from error
        if problems := _problems(**arrays):
            raise DataError("\n".join(f"{self.path}: {problem}" for problem in problems))
        train, test = (_image_set(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "test"))
        height, width, channels = train.images.shape[1:]
        in_size = (channels, height, width)
        if self.data.in_size not in (DataSettings.in_size, in_size):
            raise DataError(f"data.in_size: the images of {self.path} are {[*in_size]}; leave it out")
        fingerprint = digest("".join(f"{entry.filename}\0{entry.CRC}\0{entry.file_size}\n" for entry in entries))
        settings = {"in_size": in_size, "fingerprint": fingerprint}
        return Found(self.path, train.count, test.count, int(train.labels.max()) + 1, settings=settings), train, test


def _image_set(images: NDArray[np.uint8], labels: NDArray[Any]) -> ImageSet:
    # Arrays saved from MATLAB are in column-major order.
    return ImageSet(np.ascontiguousarray(images[..., None] if images.ndim == 3 else images), labels.astype(np.int64))


def _problems(
    train_images: NDArray[Any], train_labels: NDArray[Any], test_images: NDArray[Any], test_labels: NDArray[Any]
) -> list[str]:
    problems = []
    for part, images, labels in (("train", train_images, train_labels), ("test", test_images, test_labels)):
        if images.dtype != np.uint8:
            problems.append(f"{part}_images is {images.dtype}; give uint8, 0 to 255")
        if images.ndim not in (3, 4) or images.size == 0 or images.shape[3:] not in ((), (1,), (3,)):
            wanted = "(N, height, width, channels) with 1 or 3 channels, or (N, height, width)"
            problems.append(f"{part}_images has the shape {images.shape}; give {wanted}")
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            given = f"{labels.dtype} of the shape {labels.shape}"
            problems.append(f"{part}_labels is {given}; give integers (N,), one for each of {part}_images")
    if problems:
        return problems
    if len({(*images.shape[1:], 1)[:3] for images in (train_images, test_images)}) > 1:
        problems.append("train_images and test_images differ in size")
    classes = np.unique(train_labels)
    if len(classes) < 2 or classes.tolist() != [*range(len(classes))]:
        has = f"train_labels has the classes {enumerated([*map(str, classes)])}"
        problems.append(f"{has}; number two or more of them from 0 on, without gaps")
    elif not np.isin(test_labels, classes).all():
        beyond = enumerated([*map(str, np.setdiff1d(test_labels, classes))])
        problems.append(f"test_labels has classes that train_labels lacks: {beyond}; take them out")
    return problems
