"""What the random changes may do to an image, and that torchvision does the same."""

import pytest
import torch
from torchvision.transforms import functional

from tune_cnn.data.augmentation import augmented, views


@pytest.fixture
def images() -> torch.Tensor:
    """Images whose every pixel differs, channels last in memory as in training."""
    pixels = torch.randperm(64 * 3 * 8 * 10).reshape(64, 8, 10, 3)
    return pixels.permute(0, 3, 1, 2)


def test_every_second_image_is_mirrored(images):
    changed = augmented(images, flip=True)
    mirrored = [bool(torch.equal(new, old.flip(2))) for new, old in zip(changed, images, strict=True)]
    kept = [bool(torch.equal(new, old)) for new, old in zip(changed, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 16 < sum(mirrored) < 48


def test_shifts_are_crops_of_the_image_with_mirrored_edges(images):
    changed = augmented(images, translate=2)
    padded = functional.pad(images, [2, 2], padding_mode="reflect")
    crops = {(y, x): padded[:, :, y : y + 8, x : x + 10] for y in range(5) for x in range(5)}
    shifts = [[place for place, crop in crops.items() if torch.equal(crop[i], new)] for i, new in enumerate(changed)]
    assert all(len(places) == 1 for places in shifts)
    assert {y for [(y, _)] in shifts} == {x for [(_, x)] in shifts} == set(range(5))


def test_cutout_blanks_one_window_of_each_image(images):
    changed = augmented(images + 1, cutout=4)
    blank = changed[:, 0] == 0
    assert torch.equal(changed, torch.where(blank[:, None], 0, images + 1))
    heights, widths = blank.any(2).sum(1), blank.any(1).sum(1)
    assert torch.equal(blank.sum((1, 2)), heights * widths)
    assert int(heights.max()) == int(widths.max()) == 4
    assert int(heights.min()) >= 2  # the centre lies in the image


def test_the_same_random_state_makes_the_same_changes_whatever_the_type_of_the_images(images):
    changes = {"flip": True, "translate": 3, "cutout": 3}
    torch.manual_seed(1)
    whole = augmented(images, **changes)
    torch.manual_seed(1)
    assert torch.equal(augmented(images.float(), **changes), whole.float())
    assert not torch.equal(augmented(images, **changes), whole)
    assert whole.is_contiguous(memory_format=torch.channels_last)


def test_a_shift_may_be_larger_than_the_image():
    image = torch.arange(2.0).reshape(1, 1, 1, 2)
    assert set(augmented(image, translate=9).flatten().tolist()) == {0.0, 1.0}


def test_views_are_mirror_images_and_shifts_by_a_pixel():
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert [view.int().flatten().tolist() for view in views(image, 1)] == [[0, 1, 2, 3, 4, 5, 6, 7, 8]]
    assert [view.int().flatten().tolist() for view in views(image, 2)] == [
        [0, 1, 2, 3, 4, 5, 6, 7, 8],
        [2, 1, 0, 5, 4, 3, 8, 7, 6],
    ]
    assert [view.int().flatten().tolist() for view in views(image, 6)[2::2]] == [
        [4, 5, 4, 7, 8, 7, 4, 5, 4],
        [4, 3, 4, 1, 0, 1, 4, 3, 4],
    ]
