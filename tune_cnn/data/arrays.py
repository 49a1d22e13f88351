"""Images that are arrays already: an `.npz` of NumPy."""

import os
import zipfile
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tune_cnn.data.decoding import digest
from tune_cnn.data.source import Found, ImageSet, Source, absolute, choose
from tune_cnn.errors import DataError
from tune_cnn.settings import DataSettings

_DEFAULT_SIZE = DataSettings().in_size


class _File(NamedTuple):
    """What the file has: the size of an image (C, H, W), labels by part, and a fingerprint over its contents."""

    in_size: tuple[int, int, int]
    labels: dict[str, np.ndarray]
    classes: int
    fingerprint: str


class Arrays(Source):
    """`train_images` (N, H, W, C) or (N, H, W) uint8, `train_labels` (N,) integers, `test_images`, `test_labels`."""

    @property
    def path(self) -> str:
        """The file's absolute path."""
        if self.data.path is None:
            raise DataError("data: arrays needs its file; write arrays:/path/to/images.npz")
        return absolute(self.data.path)

    def find(self) -> Found:
        """What the file has; its images are not read."""
        file = self._inspect()
        return Found(self.path, len(file.labels["train"]), len(file.labels["test"]), file.classes)

    def resolve(self) -> DataSettings:
        """With the size of the images, their classes, and a fingerprint of the file's contents."""
        choose(self.data, self.find())  # complains of counts that are too high
        file = self._inspect()
        if self.data.in_size not in (_DEFAULT_SIZE, file.in_size):
            raise DataError(f"data.in_size: the images of {self.path} are {[*file.in_size]}; leave it out")
        return replace(
            self.data, path=self.path, in_size=file.in_size, classes=file.classes, fingerprint=file.fingerprint
        )

    def read(self, progress: bool = False, download: bool = True) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
        """Read the arrays."""
        file = self._inspect()
        if self.data.fingerprint not in (None, file.fingerprint):
            raise DataError(
                f"{self.path}: these are not the images that the training was planned with (fingerprint "
                f"{file.fingerprint}, not {self.data.fingerprint}); restore the file, or start a new training"
            )
        parts = []
        with np.load(self.path) as arrays:
            for part, chosen in zip(("train", "test"), choose(self.data, self.find()), strict=True):
                images = arrays[f"{part}_images"]
                images = images[..., None] if images.ndim == 3 else images
                parts.append(ImageSet(images[chosen], file.labels[part][chosen]))
        return parts[0], parts[1], tuple(map(str, range(file.classes)))

    def _inspect(self) -> _File:
        """Read shapes and labels only.

        Raises:
            DataError: The file is none of ours; every fault is listed.
        """
        wanted = "train_images, train_labels, test_images, test_labels"
        if not os.path.isfile(self.path):
            raise DataError(f"{self.path}: there is no such file; check the path of arrays")
        try:
            with zipfile.ZipFile(self.path) as archive, np.load(self.path) as arrays:
                absent = [name for name in wanted.split(", ") if name not in arrays.files]
                if absent:
                    raise DataError(f"{self.path}: it has no {', '.join(absent)}; wanted are {wanted}")
                sums = [archive.getinfo(f"{name}.npy") for name in wanted.split(", ")]
                shapes = {part: _header(archive, f"{part}_images.npy") for part in ("train", "test")}
                labels = {part: arrays[f"{part}_labels"] for part in ("train", "test")}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path}: not an .npz file ({error}); write it with numpy.savez") from error
        problems = [problem for part in shapes for problem in _problems(part, *shapes[part], labels[part])]
        sizes = {part: (*shape, 1)[:4][1:] for part, (shape, _) in shapes.items()}
        if not problems and sizes["train"] != sizes["test"]:
            problems.append("train_images and test_images differ in size")
        if not problems and len(np.unique(labels["train"])) < 2:
            problems.append("train_labels has only one class, so that there is nothing to tell apart")
        classes = int(labels["train"].max()) + 1 if not problems else 0
        if not problems and labels["test"].max() >= classes:
            problems.append(f"test_labels has classes beyond {classes - 1}, the last one of train_labels")
        if problems:
            raise DataError("\n".join(f"{self.path}: {problem}" for problem in problems))
        height, width, channels = sizes["train"]
        fingerprint = digest("".join(f"{info.filename}\0{info.CRC}\0{info.file_size}\n" for info in sums))
        as_whole = {part: values.astype(np.int64) for part, values in labels.items()}
        return _File((channels, height, width), as_whole, classes, fingerprint)


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return shape, dtype


def _problems(part: str, shape: tuple[int, ...], dtype: np.dtype, labels: np.ndarray) -> list[str]:
    problems = []
    name = f"{part}_images"
    if dtype != np.uint8:
        problems.append(f"{name} is {dtype}; give uint8, 0 to 255")
    if len(shape) not in (3, 4) or 0 in shape:
        problems.append(f"{name} has the shape {shape}; give (N, height, width, channels) or (N, height, width)")
    elif len(shape) == 4 and shape[3] not in (1, 3):
        problems.append(f"{name} has the shape {shape}; give 1 or 3 channels, the last axis")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        problems.append(f"{part}_labels is {labels.dtype} of the shape {labels.shape}; give integers (N,), from 0 on")
    elif len(labels) != (shape or (0,))[0]:
        problems.append(f"{name} and {part}_labels differ in length: {(shape or (0,))[0]} and {len(labels)}")
    elif labels.size and labels.min() < 0:
        problems.append(f"{part}_labels has {labels.min()}; count the classes from 0 on")
    return problems
