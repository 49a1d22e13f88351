"""Cost of a network in parameters and multiply-adds; for ConvClassifier and YourCodeNet, nothing is computed."""

from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from tune_cnn.models.custom import fault as custom_fault
from tune_cnn.models.custom import measured_layers
from tune_cnn.models.networks import build
from tune_cnn.settings import DataSettings, Settings, size_fault


class Cost(NamedTuple):
    """Cost of a network: its parameters, and the multiply-adds of one image's forward pass."""

    parameters: int
    multiply_adds: int


def cost(settings: Settings) -> Cost:
    """Count the parameters, and the multiply-adds of the conv and linear layers; errors are those of `build`."""
    return _cost(_network(settings))


def network_fault(settings: Settings, has_single: bool = False) -> str | None:
    """Why the network cannot be built or trained, and what to do; None if it can.

    `has_single`: whether one of its training batches is a single image.
    """
    return _fault(_network(settings), has_single)


@cache
def _network(settings: Settings) -> Settings:
    """Keep only what decides the network, and defaults for the rest: a cache key that many trials share."""
    shape = ("filters_per_layer", "layers_per_block", "pool_every", "hidden_dims", "ycn")
    keys = (*shape, "model", "model_args", "model_fingerprint")
    shapes = DataSettings("shapes", in_size=settings.data.in_size, classes=settings.data.classes)
    return Settings(**{key: getattr(settings, key) for key in keys}, data=shapes)


@cache
def _cost(settings: Settings) -> Cost:
    if settings.model is not None:
        with torch.random.fork_rng(devices=[]):
            model = build(settings)
            multiply_adds = sum(layer.weight.numel() * at for layer, _, at in measured_layers(model, settings))
    else:
        with torch.device("meta"):
            model = build(settings)
        multiply_adds = sum(
            conv.weight.numel() * height * width for conv, height, width in conv_layers(model, settings)
        )
        multiply_adds += sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    return Cost(sum(weight.numel() for weight in model.parameters()), multiply_adds)


@cache
def _fault(settings: Settings, has_single: bool) -> str | None:
    if settings.model is not None:
        mistake = "ycn: model names another network; keep one of the two"
        return mistake if settings.ycn else custom_fault(settings, has_single)
    if fault := size_fault(settings):
        return fault
    try:
        _cost(settings)
    except ValueError as error:
        return str(error)
    except (RuntimeError, TypeError):  # from torch, for sizes beyond 64 bits
        return "a layer is too large to exist; give fewer filters_per_layer, smaller hidden_dims or smaller images"
    return None


def conv_layers(model: nn.Module, settings: Settings) -> list[tuple[nn.Conv2d, int, int]]:
    """Conv layers of a trial's network in order, each with the height and width of its input."""
    if settings.model is not None:
        measured = measured_layers(model, settings)
        return [(layer, shape[-2], shape[-1]) for layer, shape, _ in measured if isinstance(layer, nn.Conv2d)]
    _, height, width = settings.data.in_size
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    # By formula, as both networks halve the image after every P-th conv layer: a forward pass on the meta device would
    # first import torch's compiler, which costs each process seconds.
    halvings = [index // settings.pool_every for index in range(len(convs))]
    return [(conv, height >> count, width >> count) for conv, count in zip(convs, halvings, strict=True)]
