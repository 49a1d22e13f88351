"""The networks: ConvClassifier, the assignment's pattern, and YourCodeNet, which learns where ConvClassifier cannot."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tune_cnn.models import layers
from tune_cnn.models.custom import build_custom
from tune_cnn.settings import Settings

# Most features with which YourCodeNet's classifier sees a grid of positions: at K = 32 that gained several points after
# three epochs, while at 256 channels the classifier's many weights only required a smaller learning rate.
_MOST_FEATURES = 512
# Conv layers up to which batch normalisation is enough, and skip connections cost half a point of accuracy.
_MOST_WITHOUT_SKIPS = 7
_FIRST_SCORES = 1 / 9  # factor of the last layer's initial weights


class ConvClassifier(nn.Module):
    """`[(Conv 3x3 -> ReLU)*P -> MaxPool 2]*(N/P) -> (Linear -> ReLU)*M -> Linear`, initialised as PyTorch does.

    Args:
        in_size: Channels, height and width of an image.
        out_classes: Number of classes.
        filters: Width of each of the N conv layers.
        pool_every: P; a max-pooling follows every P-th conv layer.
        hidden_dims: Widths of the M hidden fully-connected layers.

    Raises:
        ValueError: The poolings would halve the image to less than 1x1.
    """

    def __init__(
        self,
        in_size: Sequence[int],
        out_classes: int,
        filters: Sequence[int],
        pool_every: int,
        hidden_dims: Sequence[int],
    ) -> None:
        super().__init__()
        channels, height, width = in_size
        pooled = pooled_size(height, width, len(filters), pool_every)
        self.feature_extractor = nn.Sequential()
        for index, filter_count in enumerate(filters, start=1):
            self.feature_extractor.append(layers.Conv2d(channels, filter_count, 3, padding=1))
            self.feature_extractor.append(layers.ReLU())
            channels = filter_count
            if index % pool_every == 0:
                self.feature_extractor.append(nn.MaxPool2d(2))

        self.classifier = _classifier(layers.Linear, channels * pooled[0] * pooled[1], hidden_dims, out_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, out_classes) of images (B, C, H, W)."""
        features, rectify = images, layers.can_rectify(images)
        for module in _pooled_before_relu(self.feature_extractor):
            if isinstance(module, layers.Conv2d):
                features = module(features, rectify)
            elif not (rectify and isinstance(module, layers.ReLU)):
                features = module(features)
        return self.classifier(layers.flatten(features))  # type: ignore[no-any-return]


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's batch normalisation, but a batch with a single value per channel is normalised as in evaluation.

    An epoch may end with a batch of one image that poolings have shrunk to 1x1, on which PyTorch's raises an error.
    The high momentum lets the running statistics follow the weights closely; the EMA averages their noise out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.4)

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def _pooled_before_relu(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Move each ReLU behind the max-pooling after it: same values and gradients, on a quarter of the pixels."""
    order = list(modules)
    for index, module in enumerate(order[:-1]):
        if isinstance(module, nn.ReLU) and isinstance(order[index + 1], nn.MaxPool2d):
            order[index], order[index + 1] = order[index + 1], module
    return order


class ResidualConv(nn.Module):
    """`x + Conv 3x3(ReLU(BatchNorm(x)))`: pre-activation (He et al., 2016, arXiv:1603.05027), one conv per skip.

    Skips have no weights; where the width changes, there is no skip.
    """

    def __init__(self, in_channels: int, out_channels: int, skip: bool) -> None:
        super().__init__()
        self.norm = BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.has_skip = skip and in_channels == out_channels

    def forward(self, images: Tensor) -> Tensor:
        # In place where the backward pass does not need the input.
        changed = self.conv(torch.relu_(self.norm(images)))
        return changed.add_(images) if self.has_skip else changed  # type: ignore[no-any-return]


class YourCodeNet(nn.Module):
    """Batch normalisation, skip connections and He initialisation around the same grid of conv layers.

    Normalisation keeps the spread of the signal, which each conv + ReLU of a ConvClassifier shrinks; in deep networks,
    skip connections give every layer a gradient (He et al., 2015, arXiv:1512.03385). Before the classifier, few
    channels are average-pooled to a grid of up to 4x4, many are max-pooled to 1x1. The initial logits are small, so
    that no class is preferred for long.

    Adam never stops changing the normalised weights, which weight decay keeps small, by 1e-3 per batch; so the network
    asks its trainer to evaluate their EMA.

    Args and errors are those of `ConvClassifier`; there is at least one conv layer.
    """

    average = 0.998  # EMA decay per batch; see `training.TorchTrainer`

    def __init__(
        self,
        in_size: Sequence[int],
        out_classes: int,
        filters: Sequence[int],
        pool_every: int,
        hidden_dims: Sequence[int],
    ) -> None:
        super().__init__()
        channels, height, width = in_size
        pooled_size(height, width, len(filters), pool_every)  # has the same limit and raises the same error
        if not filters:
            raise ValueError("YourCodeNet needs at least one conv layer; give filters")
        self.feature_extractor = nn.Sequential(nn.Conv2d(channels, filters[0], 3, padding=1, bias=False))
        channels = filters[0]
        for index, filter_count in enumerate(filters[1:], start=1):
            if index % pool_every == 0:
                self.feature_extractor.append(nn.MaxPool2d(2))
            self.feature_extractor.append(ResidualConv(channels, filter_count, len(filters) > _MOST_WITHOUT_SKIPS))
            channels = filter_count
        poolings = (len(filters) - 1) // pool_every
        places = next(side for side in (4, 2, 1) if channels * side**2 <= _MOST_FEATURES or side == 1)
        grid = tuple(min(side >> poolings, places) for side in (height, width))
        pool = layers.AdaptiveMaxPool2d() if places == 1 else layers.AdaptiveAvgPool2d(grid)
        self.feature_extractor.extend([BatchNorm2d(channels), layers.ReLU(), pool])

        self.classifier = _classifier(nn.Linear, channels * grid[0] * grid[1], hidden_dims, out_classes)

        initialise_he(self)
        with torch.no_grad():
            self.classifier[-1].get_parameter("weight").mul_(_FIRST_SCORES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, out_classes) of images (B, C, H, W)."""
        features = self.feature_extractor(images)  # (B, filters[-1], *grid)
        return self.classifier(features.flatten(1))  # type: ignore[no-any-return]


def _classifier(linear: type[nn.Linear], features: int, hidden_dims: Sequence[int], out_classes: int) -> nn.Sequential:
    """`(Linear -> ReLU)*M -> Linear`."""
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise([features, *hidden_dims, out_classes]):
        modules += [linear(inputs, outputs), layers.ReLU()]
    return nn.Sequential(*modules[:-1])


def pooled_size(height: int, width: int, conv_layers: int, pool_every: int) -> tuple[int, int]:
    """Height and width after all poolings; a ValueError if less than 1x1 would remain."""
    poolings = conv_layers // pool_every
    halvings = min(height, width).bit_length() - 1
    if poolings > halvings:
        raise ValueError(
            f"{poolings} poolings ({conv_layers} conv layers, one pooling every {pool_every}) shrink {height}x{width} "
            f"images below 1x1; at most {halvings} fit: use a pool_every of at least "
            f"{conv_layers // (halvings + 1) + 1}, or at most {(halvings + 1) * pool_every - 1} conv layers"
        )
    return height >> poolings, width >> poolings


def build(settings: Settings) -> nn.Module:
    """Build a trial's network on the current default device, initialised from torch's current random state.

    Raises:
        ValueError: The poolings would halve the image to less than 1x1; or a custom network cannot be built.
    """
    if settings.model is not None:
        model = build_custom(settings)
    else:
        network = YourCodeNet if settings.ycn else ConvClassifier
        model = network(
            settings.data.in_size, settings.data.classes, settings.filters, settings.pool_every, settings.hidden_dims
        )
    if settings.init == "he":
        initialise_he(model)
    # Convolutions are fastest in channels-last, on CPUs and on GPUs; but with torch 2.14 on CPUs, the backward pass of
    # some crashes there, such as 1x1 with stride 2 and few channels, so custom networks stay in the default layout.
    return model.to(memory_format=torch.channels_last) if settings.model is None else model


def initialise_he(model: nn.Module) -> None:
    """He initialisation of all conv and linear layers (He et al., 2015, arXiv:1502.01852, equation 10); biases 0."""
    for module in model.modules():
        # On `meta`, where a network is only inspected, there is nothing to draw, and trying imports torch._dynamo.
        if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
