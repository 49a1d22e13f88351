"""What TensorBoard shows of a finished trial: which class was taken for which, and some of the images."""

import easy_images
import numpy as np
import pytest
from PIL import Image

from tune_cnn.data import ImageSet
from tune_cnn.settings import Settings
from tune_cnn.sweep.pictures import confusion_matrix, misclassified, pictures
from tune_cnn.trial import Trial

CARD_WIDTH = 345  # of TensorBoard, in pixels
CLASSES = tuple("abcdefghij")


def colours(picture: Image.Image) -> dict[tuple[int, ...], int]:
    """How many pixels there are of each colour."""
    return {colour: count for count, colour in picture.getcolors(picture.width * picture.height)}


def plain(*values: int) -> ImageSet:
    """Images of one grey each, all of class 0."""
    images = np.stack([np.full((8, 8, 3), value, np.uint8) for value in values])
    return ImageSet(images, np.zeros(len(values), np.int64))


def test_a_class_that_is_always_recognised_is_darkest():
    darkest = (8, 69, 148)
    right = colours(confusion_matrix((10 * np.eye(10, dtype=int)).tolist(), CLASSES))
    mixed = colours(confusion_matrix(np.full((10, 10), 7).tolist(), CLASSES))
    assert right[darkest] > 10 * 200
    assert darkest not in mixed


def test_a_class_without_test_images_is_no_error():
    assert confusion_matrix([[3, 1], [0, 0]], ("cat", "dog")).width == CARD_WIDTH


@pytest.mark.parametrize("count", [1, 2, 10, 11, 100])
def test_a_matrix_of_any_size_and_with_any_names_can_be_drawn(count):
    picture = confusion_matrix(np.eye(count, dtype=int).tolist(), ["an overlong name of a class — 猫 " * 9] * count)
    assert CARD_WIDTH <= picture.width <= 1100
    assert picture.height <= 1100


def test_only_wrong_images_are_shown():
    shown = colours(misclassified(plain(50, 100, 150), np.array([0, 1, 0]), ("cat", "dog")))
    assert shown[100, 100, 100] >= 6400
    assert shown.get((50, 50, 50), 0) < 100  # some on the edges of letters


def test_the_shown_ones_are_spread_over_all_wrong_ones():
    values = range(35, 235)
    shown = colours(misclassified(plain(*values), np.ones(200, np.int64), ("cat", "dog")))
    assert shown[35, 35, 35] >= 6400
    assert shown[234, 234, 234] >= 6400
    assert sum(shown.get((value,) * 3, 0) >= 6400 for value in values) == 20


def test_a_trial_has_the_pictures_that_fit_a_card():
    settings = Settings(
        seed=1, bs_train=10, epochs=1, filters_per_layer=(4,), hidden_dims=(12,), data=easy_images.SETTINGS
    )
    trial = Trial(settings, easy_images.easy_images())
    trial.run_epoch()
    drawn = pictures(trial)
    assert [picture.width for picture in drawn.values()] == [CARD_WIDTH, CARD_WIDTH]
    trial.test_predictions = trial.images.test.labels
    assert list(pictures(trial)) == ["test/confusion"]  # since nothing is misclassified


def test_grey_images_are_shown_as_those_of_three_channels():
    three = plain(100, 200)
    grey = ImageSet(three.images[..., :1], three.labels)
    shown = [misclassified(images, np.array([1, 2]), CLASSES) for images in (three, grey)]
    assert shown[0].tobytes() == shown[1].tobytes()
