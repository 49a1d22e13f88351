"""Where to compute."""

import torch
from torch import nn

from tune_cnn.errors import ConfigError


def device_of(model: nn.Module) -> torch.device:
    """Device of a network's weights."""
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_device(name: torch.device | str | None) -> torch.device:
    """The device of this name; None: the default one.

    Raises:
        ConfigError: There is no such device.
    """
    if name is None:
        return default_device()
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, TypeError) as error:
        fault = str(error).partition("\n")[0].rstrip(".")
        remedy = "leave it out for the GPU if there is one, else the CPU"
        raise ConfigError("device", [f"device: {str(name)!r} cannot be used ({fault}); {remedy}"]) from error
