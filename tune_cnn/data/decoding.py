"""Decoding of image files, once per folder: the decoded images are kept in the user's cache folder."""

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from tune_cnn.errors import DataError
from tune_cnn.files import replace_file
from tune_cnn.machine import cores
from tune_cnn.texts import digest, named

_MOST_THREADS = 8  # more are not faster: small images take more time in Python than in the decoder
_RULES = 2  # version of the decoding; raise it when a file's pixels change, so that older caches are not used
_MOST_NAMED = 100  # broken files in a message


class ImageFile(NamedTuple):
    """One file of a folder; `name` is its path inside the folder, `label` the index of its class."""

    path: str
    name: str
    label: int
    size_bytes: int
    modified_ns: int


class _Deep(NamedTuple):
    """A greyscale image of more than 8 bits: float32 (height, width), lowest and highest value, original dtype."""

    values: NDArray[np.float32]
    low: float
    high: float
    dtype: str


def read_images(files: Sequence[ImageFile], height: int, width: int, progress: bool = False) -> NDArray[np.uint8]:
    """Decode images (N, height, width, 3), or load them from the cache; arguments and errors are those of `decode`."""
    shape = (len(files), height, width, 3)
    # With the time of modification, so that an edited file of the same size is decoded again.
    key = digest(f"{_RULES}{shape}\n" + "".join(f"{f.name}\0{f.size_bytes}\0{f.modified_ns}\n" for f in files))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tune_cnn" / "images" / f"{key}.npy"
    with suppress(Exception):  # missing, truncated or foreign: decoding again repairs it
        kept: NDArray[np.uint8] = np.load(cache)
        if kept.shape == shape and kept.dtype == np.uint8:
            return kept
    images, _ = decode(files, height, width, progress)
    # A full or read-only disk only makes the next start slower.
    with suppress(OSError):
        buffer = BytesIO()
        np.save(buffer, images)
        replace_file(cache, buffer.getvalue())
    return images


def decode(
    files: Sequence[ImageFile], height: int, width: int, progress: bool = False
) -> tuple[NDArray[np.uint8], bool]:
    """Decode images as a viewer shows them: rotated by their EXIF orientation, and on white where transparent.

    Greyscale images of more than 8 bits (integers or floats) are scaled to 8: black is the lowest and white the highest
    value in all `files` of that dtype, which preserves differences between images. Of several frames, the first is
    taken. Images of another size are resized without keeping their aspect ratio.

    Returns:
        Images (N, height, width, 3), and whether any was scaled by the value range of all.

    Raises:
        DataError: Some files cannot be decoded; it names them, up to 100.
    """
    images = np.empty((len(files), height, width, 3), np.uint8)
    deep: dict[int, _Deep] = {}
    broken: list[str] = []
    # Pillow's warnings, such as that of a damaged EXIF block, do not name the file.
    with warnings.catch_warnings(action="ignore"), ThreadPool(min(cores(), _MOST_THREADS)) as pool:
        done = pool.imap(lambda file: _decode(file, height, width), files, chunksize=64)
        shown = tqdm(done, "decoding images", len(files), unit="image", disable=not progress)
        for index, picture in enumerate(shown):
            if isinstance(picture, str):
                broken.append(f"  {files[index].path}: {picture}")
            elif isinstance(picture, _Deep):
                deep[index] = picture
            else:
                images[index] = picture
    if broken:
        head = f"{len(broken)} of {len(files)} images cannot be decoded; repair them, or take them out:"
        raise DataError("\n".join([head, *broken[:_MOST_NAMED]]))
    ranges: dict[str, tuple[float, float]] = {}  # by dtype: the range of floats says nothing about integers
    for image in deep.values():
        low, high = ranges.get(image.dtype, (image.low, image.high))
        ranges[image.dtype] = min(low, image.low), max(high, image.high)
    for index, image in deep.items():
        low, high = ranges[image.dtype]
        shades = (image.values.astype(np.float64) - low) * (255 / (high - low) if high > low else 0)
        images[index] = shades.round().clip(0, 255)[..., None]
    return images, bool(deep)


def _decode(image: ImageFile, height: int, width: int) -> NDArray[np.uint8] | _Deep | str:
    """Decode one image, or return why it cannot be decoded."""
    try:
        with Image.open(image.path) as file:
            file.load()
            with suppress(Exception):  # a damaged EXIF block does not make the image useless
                ImageOps.exif_transpose(file, in_place=True)
            if file.mode in ("I", "F") or file.mode.startswith("I;16"):
                return _deep(np.asarray(file), height, width)
            if file.has_transparency_data:
                over = file.convert("RGBA")
                shown = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
            else:
                shown = file.convert("RGB")
        return np.asarray(_resized(shown, height, width))
    except Exception as error:  # Pillow's decoders raise all kinds of exceptions
        return named(error)


def _deep(values: NDArray[Any], height: int, width: int) -> _Deep:
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("it has no finite values")
    low, high = float(finite.min()), float(finite.max())
    # NaN, where nothing was measured, becomes black.
    floats = np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low)
    image = _resized(Image.fromarray(floats), height, width)
    return _Deep(np.asarray(image), low, high, values.dtype.name)


def _resized(image: Image.Image, height: int, width: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)
