"""Changes of images, on whole batches, on the device where they are: random ones to train with, fixed ones to test."""

import torch
from torch import Tensor, nn


def augmented(images: Tensor, flip: bool = False, translate: int = 0, cutout: int = 0) -> Tensor:
    """Mirror, shift and blank images, each by itself; the draws come from PyTorch's random state on the CPU.

    Args:
        images: (B, C, H, W) of any type.
        flip: Mirror every second image, chosen at random.
        translate: Shift by up to so many pixels in each direction; what comes in is the mirrored edge.
        cutout: Blank a square of so many pixels, whose centre lies anywhere in the image.

    Returns:
        The changed images, channels last in memory.
    """
    count, _, height, width = images.shape
    draws = torch.rand(5, count, 1).to(images.device, non_blocking=True)
    rows = torch.arange(height, device=images.device).expand(count, -1)  # (B, H)
    columns = torch.arange(width, device=images.device).expand(count, -1)  # (B, W)
    if translate:
        down, right = (draws[:2] * (2 * translate + 1)).long() - translate
        rows, columns = _mirrored(rows + down, height), _mirrored(columns + right, width)
    if flip:
        columns = torch.where(draws[2] < 0.5, columns.flip(1), columns)
    pixels = images.permute(0, 2, 3, 1)  # (B, H, W, C), as they lie in memory, so that whole pixels are copied
    if flip or translate:
        batch = torch.arange(count, device=images.device)[:, None, None]
        pixels = pixels[batch, rows[:, :, None], columns[:, None, :]]
    if cutout:
        tall, wide = _blanked(height, cutout, draws[3]), _blanked(width, cutout, draws[4])
        pixels = pixels.masked_fill((tall[:, :, None] & wide[:, None, :])[..., None], 0)
    return pixels.permute(0, 3, 1, 2)


def views(images: Tensor, count: int) -> list[Tensor]:
    """Each of the images (B, C, H, W), and with 2 or 6 their mirror images; with 6 also both shifted by a pixel.

    What a shift, to the upper left or to the lower right, brings in is the mirrored edge.
    """
    seen = [images]
    if count == 6:
        height, width = images.shape[2:]
        padded = nn.functional.pad(images, (1, 1, 1, 1), mode="reflect")
        seen += [padded[:, :, 2:, 2:], padded[:, :, :height, :width]]
    return seen if count == 1 else [view for image in seen for view in (image, image.flip(3))]


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Places beyond an edge as their mirror images, the edge itself not doubled."""
    period = max(2 * (size - 1), 1)
    places = places.remainder(period)
    return torch.minimum(places, period - places)


def _blanked(size: int, side: int, draws: Tensor) -> Tensor:
    """Which of `size` places a window of `side` around a random centre covers, (B, size)."""
    first = (draws * size).long() - side // 2
    places = torch.arange(size, device=draws.device)
    return (places >= first) & (places < first + side)
