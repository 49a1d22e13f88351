"""Images: their sources, the split into training and validation, batches, augmentation."""

from tune_cnn.data.images import (
    VALIDATION_SHARE,
    Images,
    ImageSet,
    count_images,
    first_images,
    load,
    nbytes,
    resolve,
    split,
)

__all__ = [
    "VALIDATION_SHARE",
    "ImageSet",
    "Images",
    "count_images",
    "first_images",
    "load",
    "nbytes",
    "resolve",
    "split",
]
