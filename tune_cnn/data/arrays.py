"""Images in NumPy arrays, from an `.npz` file."""

import os
import zipfile
import zlib
from tokenize import TokenError

import numpy as np

from tune_cnn.data.source import Found, ImageSet, Source, choose
from tune_cnn.errors import DataError
from tune_cnn.settings import DataSettings
from tune_cnn.texts import digest

_PARTS = ("train", "test")
# RuntimeError: encrypted, or compressed by an unknown method; TokenError: a header that is cut short.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, TokenError, zipfile.BadZipFile, zlib.error)
_NAMES = ("train_images", "train_labels", "test_images", "test_labels")


class Arrays(Source):
    """`train_images` (N, H, W, C) or (N, H, W) uint8, `train_labels` (N,) integers, `test_images`, `test_labels`."""

    def inspect(self) -> Found:
        """Inspect the file by its shapes and labels, without reading the images; a DataError lists every fault."""
        if not os.path.isfile(self.path):
            fault = "not a regular file" if os.path.lexists(self.path) else "there is no such file"
            raise DataError(f"{self.path}: {fault}; check the path of arrays")
        try:
            with zipfile.ZipFile(self.path) as archive, np.load(self.path) as arrays:
                if absent := [name for name in _NAMES if name not in arrays.files]:
                    raise DataError(f"{self.path}: it has no {', '.join(absent)}; it must have {', '.join(_NAMES)}")
                sums = [archive.getinfo(f"{name}.npy") for name in _NAMES]
                shapes = {part: _header(archive, f"{part}_images.npy") for part in _PARTS}
                labels = {part: arrays[f"{part}_labels"] for part in _PARTS}
        except _DAMAGED as error:
            raise DataError(f"{self.path}: not an .npz file ({error}); write it with numpy.savez") from error
        problems = [problem for part in _PARTS for problem in _problems(part, *shapes[part], labels[part])]
        sizes = {part: (*shape, 1)[:4][1:] for part, (shape, _) in shapes.items()}
        if not problems:
            if sizes["train"] != sizes["test"]:
                problems.append("train_images and test_images differ in size")
            if len(present := np.unique(labels["train"])) < 2:
                problems.append("train_labels has only one class, so there is nothing to tell apart")
            elif labels["test"].max() > (last := labels["train"].max()):
                problems.append(f"test_labels has classes beyond {last}, the last one of train_labels")
            elif len(present) <= last:
                absent = min({*range(len(present))} - {*present.tolist()})
                problems.append(f"train_labels has {last}, but no {absent}; number the classes from 0 on, without gaps")
        if problems:
            raise DataError("\n".join(f"{self.path}: {problem}" for problem in problems))
        height, width, channels = sizes["train"]
        in_size = (channels, height, width)
        if self.data.in_size not in (DataSettings.in_size, in_size):
            raise DataError(f"data.in_size: the images of {self.path} are {[*in_size]}; leave it out")
        counts = len(labels["train"]), len(labels["test"]), int(labels["train"].max()) + 1
        fingerprint = digest("".join(f"{info.filename}\0{info.CRC}\0{info.file_size}\n" for info in sums))
        return Found(self.path, *counts, settings={"in_size": in_size, "fingerprint": fingerprint})

    def read(self, progress: bool = False, download: bool = True) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
        """Read the arrays."""
        found = self.inspect()
        self.check_unchanged(found)
        parts = []
        try:
            with np.load(self.path) as arrays:
                for part, chosen in zip(_PARTS, choose(self.data, found), strict=True):
                    images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"].astype(np.int64)
                    # Arrays saved from MATLAB are in column-major order.
                    images = np.ascontiguousarray(images[..., None] if images.ndim == 3 else images)
                    parts.append(ImageSet(images, labels).take(chosen))
        except _DAMAGED as error:
            raise DataError(f"{self.path}: damaged ({error}); write it again with numpy.savez") from error
        return parts[0], parts[1], tuple(map(str, range(found.classes)))


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
