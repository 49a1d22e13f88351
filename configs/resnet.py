"""A small ResNet of variable width and dropout: an example of a custom network for tune_cnn, searched by resnet.yaml.

tune_cnn passes `in_size` and `out_classes` to the constructor, and whichever of `filters`, `pool_every` and
`hidden_dims` it names. All other arguments come from `model_args`.
"""

from collections.abc import Sequence

from torch import Tensor, nn


class Block(nn.Module):
    """Two conv layers around a skip connection (He et al., 2015, arXiv:1512.03385); the first may halve the map."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        is_same = stride == 1 and in_channels == channels
        self.skip = nn.Identity() if is_same else nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.relu(self.layers(images) + self.skip(images))


class SmallResNet(nn.Module):
    """A conv layer, three blocks, global average pooling, and a linear classifier.

    Args:
        in_size: Channels, height and width of an image.
        out_classes: Number of classes.
        width: Channels of the first block; each further one doubles them and halves the map.
        dropout: Probability of dropping a feature before the classifier in training.
    """

    def __init__(self, in_size: Sequence[int], out_classes: int, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(in_size[0], width, 3, padding=1), nn.ReLU())
        self.blocks = nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * width, out_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [0, 1] to logits (B, out_classes)."""
        features = self.blocks(self.first(images))  # (B, 4 * width, H / 4, W / 4)
        return self.classifier(features.mean(dim=(2, 3)))
