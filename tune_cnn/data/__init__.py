"""Images: their sources, the split into training and validation, batches, augmentation."""

from tune_cnn.data.images import (
    SOURCES,
    Images,
    count_images,
    describe,
    first_images,
    load,
    nbytes,
    resolve,
)
from tune_cnn.data.source import VALIDATION_SHARE, ImageSet, split

__all__ = [
    "SOURCES",
    "VALIDATION_SHARE",
    "ImageSet",
    "Images",
    "count_images",
    "describe",
    "first_images",
    "load",
    "nbytes",
    "resolve",
    "split",
]
