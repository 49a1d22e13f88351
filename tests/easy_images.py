"""Images of plain colours, which even the smallest network learns within a few epochs."""

import numpy as np

from tune_cnn.data import Images, ImageSet
from tune_cnn.settings import DataSettings

CLASSES = ("red", "green", "blue", "grey")
# For the settings of trials on these images; nothing is read from that folder.
SETTINGS = DataSettings("image_folder", "easy", in_size=(3, 8, 8), classes=len(CLASSES), fingerprint="easy")


def easy_images(train: int = 60, validation: int = 30, test: int = 20) -> Images:
    """Draw images (N, 8, 8, 3) of four classes, read-only as sweeps share them; some are too noisy to be recognised."""
    random = np.random.RandomState(0)
    colours = np.array([[160, 80, 80], [80, 160, 80], [80, 80, 160], [107, 107, 107]])

    def draw(count: int) -> ImageSet:
        labels = random.randint(0, len(CLASSES), count)
        noise = random.normal(0, 1, (count, 8, 8, 3)) * random.uniform(20, 40)
        shift = random.normal(0, 20, (count, 1, 1, 3))
        images = (colours[labels][:, None, None] + noise + shift).clip(0, 255).astype(np.uint8)
        images.flags.writeable = False
        return ImageSet(images, labels)

    return Images(draw(train), draw(validation), draw(test), CLASSES)
