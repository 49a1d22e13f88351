"""What a network costs: its weights and its multiply-adds, counted without computing anything."""

from typing import NamedTuple

import torch
from torch import nn

from tune_cnn.models.networks import build
from tune_cnn.settings import Settings, size_fault


class Cost(NamedTuple):
    """What a network costs: its weights, and the multiply-adds of one image's forward pass."""

    parameters: int
    multiply_adds: int


def cost(settings: Settings) -> Cost:
    """Count parameters and multiply-adds of the conv and linear layers, without computing anything.

    Raises:
        ValueError: The poolings would halve the image to less than 1x1.
    """
    with torch.device("meta"):
        model = build(settings)
    convs = sum(conv.weight.numel() * height * width for conv, height, width in conv_layers(model, settings))
    linears = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    return Cost(sum(weight.numel() for weight in model.parameters()), convs + linears)


def network_fault(settings: Settings) -> str | None:
    """Why the network cannot be built, and what to do; None if it can."""
    if fault := size_fault(settings):
        return fault
    try:
        cost(settings)
    except ValueError as error:
        return str(error)
    except (RuntimeError, TypeError):  # torch, about sizes beyond 64 bits
        return "a layer is too large to exist; give fewer filters_per_layer, smaller hidden_dims or smaller images"
    return None


def conv_layers(model: nn.Module, settings: Settings) -> list[tuple[nn.Conv2d, int, int]]:
    """The conv layers of a trial's network in their order, each with the height and width of its images."""
    _, height, width = settings.data.in_size
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    # By formula, as both networks halve the image after every P-th conv layer: a forward pass on the meta device would
    # first import torch's compiler, which takes each process seconds.
    halvings = [index // settings.pool_every for index in range(len(convs))]
    return [(conv, height >> count, width >> count) for conv, count in zip(convs, halvings, strict=True)]
