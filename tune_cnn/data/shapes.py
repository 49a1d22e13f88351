"""Small drawn images of ten classes, for a first try without a network connection or a folder of images.

A shape has a random position, size, angle and colours, so that no single pixel reveals its class: a network must look
at edges and corners. The same seed gives the same bytes with every version of NumPy.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_cnn.data.source import Found, ImageSet, Source
from tune_cnn.errors import DataError

Floats = NDArray[np.floating[Any]]
_PIXELS_AT_ONCE = 1 << 19
_NOISE = 20  # largest deviation of a pixel, of 256 shades
_COUNTS = (5_000, 1_000)  # default numbers of training and test images
_SMALLEST = 8  # pixels


def _length(u: Floats, v: Floats) -> Floats:
    return np.sqrt(u * u + v * v)


def _box(u: Floats, v: Floats, half_width: float, half_height: float) -> Floats:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


# Distance of a point from each shape, negative inside, in coordinates where the shape spans -1 to 1.
_SHAPES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": lambda u, v: _length(u, v) - 0.85,
    "ring": lambda u, v: np.abs(_length(u, v) - 0.75) - 0.2,
    "square": lambda u, v: _box(u, v, 0.72, 0.72),
    "frame": lambda u, v: np.abs(_box(u, v, 0.6, 0.6)) - 0.17,
    "triangle": lambda u, v: np.maximum(v, np.abs(u) * 0.866 - v * 0.5) - 0.5,
    "cross": lambda u, v: np.minimum(_box(u, v, 1, 0.24), _box(u, v, 0.24, 1)),
    "bar": lambda u, v: _box(u, v, 1, 0.25),
    "stripes": lambda u, v: _box(u, np.abs(v) - 0.5, 0.8, 0.22),
    "half": lambda u, v: np.maximum(_length(u, v - 0.4) - 0.95, v - 0.4),
    "crescent": lambda u, v: np.maximum(_length(u, v) - 1, 0.85 - _length(u - 0.55, v)),
}
CLASSES = tuple(_SHAPES)


class Shapes(Source):
    """Shapes drawn on the fly from `data.seed`, in any number and size."""

    def inspect(self) -> Found:
        """Numbers of images, from the settings or by default."""
        if min(self.data.in_size[1:]) < _SMALLEST:
            least = [3, _SMALLEST, _SMALLEST]
            raise DataError(
                f"data.in_size: {list(self.data.in_size)} is too small to draw shapes; take {least} or more"
            )
        train, test = self.data.train_images or _COUNTS[0], self.data.test_images or _COUNTS[1]
        # The counts become part of the trial id, so that new defaults never change what an id stands for.
        settings = {"path": None, "train_images": train, "test_images": test}
        return Found("shapes", train, test, len(CLASSES), CLASSES, settings=settings)

    def read(self, progress: bool = False, download: bool = True) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
        """Draw the images."""
        found = self.inspect()
        _, height, width = self.data.in_size
        train = ImageSet(*draw(found.train, height, width, self.data.seed, stream=0))
        test = ImageSet(*draw(found.test, height, width, self.data.seed, stream=1))
        return train, test, CLASSES


def draw(count: int, height: int, width: int, seed: int, stream: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw images of shapes, all classes equally often; their height and width are at least 8 pixels.

    Returns:
        Images (count, height, width, 3), and their indices in `CLASSES` (count,). From the same seed, each `stream`
        gives other images: 0 for training, 1 for testing.
    """
    # RandomState, unlike Generator, guarantees the same numbers in every version of NumPy.
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, stream))))
    labels = random.permutation(np.arange(count, dtype=np.int64) % len(CLASSES))
    images = np.empty((count, height, width, 3), np.uint8)
    at_once = max(1, _PIXELS_AT_ONCE // (height * width))
    for start in range(0, count, at_once):
        part = slice(start, start + at_once)
        images[part] = _draw(labels[part], height, width, random)
    return images, labels


def _draw(labels: NDArray[np.int64], height: int, width: int, random: np.random.RandomState) -> NDArray[np.uint8]:
    def between(low: float, high: float, channels: int = 1) -> Floats:
        return random.uniform(low, high, (len(labels), 1, 1, channels)).astype(np.float32)

    # Pixel coordinates relative to the shape's centre, which is placed so that the whole shape is in the image.
    radius = between(0.28, 0.45) * min(height, width)  # (N, 1, 1, 1)
    y = np.arange(height, dtype=np.float32)[:, None, None] + 0.5 - radius - between(0, 1) * (height - 2 * radius)
    x = np.arange(width, dtype=np.float32)[:, None] + 0.5 - radius - between(0, 1) * (width - 2 * radius)
    # Rounded, as the sine's last bit differs from one processor to the next; everything else here is exact.
    angle = between(-0.5, 0.5).astype(np.float64)
    cos, sin = (turn(angle).round(4).astype(np.float32) for turn in (np.cos, np.sin))
    u, v = (cos * x + sin * y) / radius, (cos * y - sin * x) / radius  # (N, H, W, 1)

    outside = np.empty_like(u)
    for label, shape in enumerate(_SHAPES.values()):
        mine = labels == label
        outside[mine] = shape(u[mine], v[mine])
    cover = np.clip(0.5 - outside * radius, 0, 1)  # an edge is one pixel wide

    # The background is a gradient between two colours; the shape is much brighter or darker.
    shade = np.clip(0.5 + (between(-1, 1) * x + between(-1, 1) * y) / max(height, width), 0, 1)
    ground, far_ground = between(90, 165, channels=3), between(90, 165, channels=3)
    dark, bright = between(0, 55, channels=3), between(200, 255, channels=3)
    paint = np.where(between(0, 1) < 0.5, dark, bright)
    ground = ground + (far_ground - ground) * shade  # (N, H, W, 3)
    image = ground + (paint - ground) * cover
    noise = np.frombuffer(random.bytes(image.size), np.uint8).reshape(image.shape)
    image += noise * np.float32(2 * _NOISE / 255) - np.float32(_NOISE)
    return image.clip(0, 255).astype(np.uint8)
