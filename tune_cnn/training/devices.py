"""Where to compute."""

import re

import torch
from torch import nn

from tune_cnn.errors import ConfigError


def device_of(model: nn.Module) -> torch.device:
    """Device of a network's weights."""
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def is_out_of_memory(error: Exception) -> bool:
    """Whether a GPU's memory was too small: for PyTorch, or for cuBLAS or cuDNN, which allocate some of their own."""
    told = re.search(r"CU(BLAS|DNN)_STATUS_\w*ALLOC\w*_FAILED|CUDA error: out of memory", str(error))
    return isinstance(error, torch.OutOfMemoryError) or told is not None


def is_cuda_error(error: Exception) -> bool:
    """Whether an error ended the use of the GPU by this process: every later call repeats it."""
    return "CUDA error" in str(error)


def choose_device(name: torch.device | str | None) -> torch.device:
    """The device of this name; None: the default one.

    Raises:
        ConfigError: There is no such device.
    """
    if name is None:
        return default_device()
    try:
        device = torch.empty(0, device=name).device
        if device.type == "cuda":
            torch.cuda.set_device(device)  # what names no device, such as memory statistics, means this one
        return device
    except (RuntimeError, AssertionError, TypeError) as error:
        fault = str(error).partition("\n")[0].rstrip(".")
        if "Expected one of" in fault:  # and then all that PyTorch was ever built for
            fault = "PyTorch knows no such device"
        raise ConfigError(
            "device", [f"device: {str(name)!r} cannot be used ({fault}); write cpu, or cuda for a GPU"]
        ) from error
