"""A folder of images: finding the files, telling them from another folder's, and decoding each image once."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from tune_cnn.errors import DataError
from tune_cnn.files import replace_file
from tune_cnn.machine import cores

# Decoding scales to a few threads only: of small images, more time goes to Python than to the decoder.
_MOST_THREADS = 8
_FILES_AT_ONCE = 64


class ImageFile(NamedTuple):
    """One file of a folder; `name` is its path inside the folder, `label` the index of its class."""

    path: str
    name: str
    label: int
    size_bytes: int
    modified_ns: int


class Folder(NamedTuple):
    """What lies in a folder of images, in the order of torchvision's `ImageFolder`.

    Attributes:
        classes: Names of the classes.
        train: The files below `train/`.
        test: The files below `test/`.
        fingerprint: 16 hex digits over the names and sizes of all files; the same wherever the folder lies.
    """

    classes: tuple[str, ...]
    train: list[ImageFile]
    test: list[ImageFile]
    fingerprint: str


def list_folder(root: str) -> Folder:
    """Find the images of a folder without opening them.

    Raises:
        DataError: The folder, its `train/` or its `test/` is missing, has no images, or their classes differ.
    """
    if not os.path.isdir(root):
        raise DataError(f"{root}: there is no such folder; check the path of image_folder")
    classes, train = _list_split(root, "train")
    test_classes, test = _list_split(root, "test")
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise DataError(
            f"{root}: train/ and test/ do not have the same classes; {_enumerate(odd)} is in one of them only: "
            "give every class a folder of the same name in both"
        )
    lines = [f"{file.name}\0{file.size_bytes}\n" for file in train + test]
    return Folder(classes, train, test, _digest("".join(lines)))


def _list_split(root: str, split: str) -> tuple[tuple[str, ...], list[ImageFile]]:
    # Importing torchvision takes a second, which trials on other images need not wait for.
    from torchvision.datasets import ImageFolder

    folder = os.path.join(root, split)
    wanted = "it must hold one folder of images for each class"
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: there is no such folder; {wanted}")
    try:
        found = ImageFolder(folder)
        files = []
        for path, label in found.samples:
            status = os.stat(path)
            name = path[len(root) :].replace(os.sep, "/").lstrip("/")
            files.append(ImageFile(path, name, label, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise DataError(f"{folder}: {error}; {wanted}") from error
    return tuple(found.classes), files


def read_images(
    files: Sequence[ImageFile], height: int, width: int, progress: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Decode images, or read them as decoded the last time.

    Args:
        files: Which.
        height: In pixels; images of another size are resized, without regard to their proportions.
        width: In pixels.
        progress: Show a progress bar while decoding.

    Returns:
        Images (N, height, width, 3), and labels (N,).

    Raises:
        DataError: A file is not an image that can be decoded.
    """
    labels = np.array([file.label for file in files], np.int64)
    shape = (len(files), height, width, 3)
    # The time of change counts too, lest an edited file of the same size leave its old image here.
    key = _digest(f"{shape}\n" + "".join(f"{f.name}\0{f.size_bytes}\0{f.modified_ns}\n" for f in files))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tune_cnn" / "images" / f"{key}.npy"
    images = _load_cache(cache, shape)
    if images is None:
        images, _ = decode(files, height, width, progress)
        # A full or read-only disk costs the next start some time, and nothing else.
        with suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            buffer = BytesIO()
            np.save(buffer, images)
            replace_file(cache, buffer.getvalue())
    return images, labels


def _load_cache(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    try:
        images = np.load(path, allow_pickle=False)
    except Exception:  # absent, cut short, or not ours: whatever it is, decoding again mends it
        return None
    return images if getattr(images, "shape", None) == shape and images.dtype == np.uint8 else None


def decode(
    files: Sequence[ImageFile], height: int, width: int, progress: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Decode images anew, and keep nothing; arguments, result and errors are those of `read_images`."""
    images = np.empty((len(files), height, width, 3), np.uint8)

    def decode_from(start: int) -> int:
        part = files[start : start + _FILES_AT_ONCE]
        for index, file in enumerate(part, start):
            images[index] = _decode(file.path, height, width)
        return len(part)

    with (
        ThreadPool(min(cores(), _MOST_THREADS)) as pool,
        tqdm(total=len(files), desc="decoding images", unit="image", disable=not progress) as bar,
    ):
        for count in pool.imap_unordered(decode_from, range(0, len(files), _FILES_AT_ONCE)):
            bar.update(count)
    return images, np.array([file.label for file in files], np.int64)


def _decode(path: str, height: int, width: int) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image)
    except Exception as error:  # PIL's decoders raise nearly everything
        raise DataError(f"{path}: cannot be decoded ({error}); repair the image, or take it out") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _enumerate(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
