"""Augmentation of whole batches on their device: random for training, fixed views for testing."""

import torch
from torch import Tensor, nn


def augmented(images: Tensor, flip: bool = False, translate: int = 0, cutout: int = 0) -> Tensor:
    """Mirror, shift and blank each image independently, with draws from PyTorch's random state on the CPU.

    Args:
        images: (B, C, H, W) of any dtype.
        flip: Mirror each image with probability 1/2.
        translate: Largest random shift in each direction, in pixels; gaps are filled by reflecting the image.
        cutout: Side of a blanked square, in pixels; its centre lies anywhere in the image.

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
    pixels = images.permute(0, 2, 3, 1)  # (B, H, W, C), as in memory, so that whole pixels are copied
    if flip or translate:
        batch = torch.arange(count, device=images.device)[:, None, None]
        pixels = pixels[batch, rows[:, :, None], columns[:, None, :]]
    if cutout:
        tall, wide = _blanked(height, cutout, draws[3]), _blanked(width, cutout, draws[4])
        pixels = pixels.masked_fill((tall[:, :, None] & wide[:, None, :])[..., None], 0)
    return pixels.permute(0, 3, 1, 2)


def views(images: Tensor, count: int) -> list[Tensor]:
    """Views of images (B, C, H, W) for test-time augmentation: 1, as they are; 2, also mirrored; 6, also both shifted.

    Shifts are by one pixel, to the upper left and to the lower right; gaps are filled by reflecting the image.
    """
    seen = [images]
    if count == 6:
        height, width = images.shape[2:]
        padded = nn.functional.pad(images, (1, 1, 1, 1), mode="reflect")
        seen += [padded[:, :, 2:, 2:], padded[:, :, :height, :width]]
    return seen if count == 1 else [view for image in seen for view in (image, image.flip(3))]


def _mirrored(positions: Tensor, size: int) -> Tensor:
    """Reflect positions that lie beyond an edge, without repeating the edge."""
    period = max(2 * (size - 1), 1)
    positions = positions.remainder(period)
    return torch.minimum(positions, period - positions)


def _blanked(size: int, side: int, draws: Tensor) -> Tensor:
    """Mask (B, size) of the positions that a window of `side` around a random centre covers."""
    first = (draws * size).long() - side // 2
    positions = torch.arange(size, device=draws.device)
    return (positions >= first) & (positions < first + side)
