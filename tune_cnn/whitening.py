"""A first conv layer that whitens the patches of the training images, and stays as it is."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

_IMAGES = 500  # have some 450,000 patches
_LEAST_VARIANCE = 1e-5  # of pixels in [0, 1]; what varies less is not amplified further


@torch.no_grad()
def whiten_first_conv(model: nn.Module, images: NDArray[np.uint8]) -> None:
    """Fix the first conv layer to the principal components of the patches that it sees.

    Each component has two filters, with either sign, so that an activation function loses nothing of it, and gives
    values of mean 0 (where the layer has a bias) and variance 1. The components that vary most come first; filters
    beyond twice their number keep their first weights. The method is that of Page, "How to Train Your ResNet 8: Bag of
    Tricks", 2019, as in Jordan, 2024, arXiv:2404.00498, section 3.2.

    Args:
        model: Has a conv layer of odd kernels on images in [0, 1].
        images: Training images uint8 (N, H, W, C); the first few hundred are enough.
    """
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    height, width = conv.kernel_size
    pixels = torch.from_numpy(images[:_IMAGES].copy()).permute(0, 3, 1, 2).double().div_(255)
    # Without the zeros around the image, unless it is smaller than a patch.
    fits = pixels.shape[2] >= height and pixels.shape[3] >= width
    patches = nn.functional.unfold(pixels, (height, width), padding=0 if fits else (height // 2, width // 2))
    rows = patches.transpose(1, 2).reshape(-1, patches.shape[1])  # (patches, C * h * w)
    mean = rows.mean(dim=0)
    rows -= mean
    variances, components = torch.linalg.eigh(rows.T @ rows / len(rows))  # in rising order
    pairs = min(conv.out_channels // 2, len(variances))
    order = torch.arange(len(variances) - 1, len(variances) - 1 - pairs, -1)
    filters = (components[:, order] / (variances[order] + _LEAST_VARIANCE).sqrt()).T
    filters = torch.cat([filters, -filters])  # (2 * pairs, C * h * w)
    conv.weight[: 2 * pairs] = filters.view(-1, *conv.weight.shape[1:]).to(conv.weight)
    if conv.bias is not None:
        conv.bias[: 2 * pairs] = -(filters @ mean).to(conv.bias)
    conv.weight.requires_grad_(False)
