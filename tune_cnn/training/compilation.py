"""`torch.compile`, where there is a compiler."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tune_cnn.training.devices import device_of


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model, compiled at its first call (on a GPU into CUDA graphs); uncompiled, with a warning, if that fails."""
    mode = "reduce-overhead" if device_of(model).type == "cuda" else None
    forward: Callable[[Tensor], Tensor] = torch.compile(model, mode=mode, dynamic=False)

    def call(images: Tensor) -> Tensor:
        nonlocal forward
        try:
            return forward(images).clone()  # a CUDA graph overwrites its output at the next call
        except (torch._dynamo.exc.TorchDynamoException, ImportError) as error:
            if forward is model:
                raise
            fault = str(error).strip().partition("\n")[0]
            warnings.warn(f"compile: not possible here, so the network runs as it is ({fault})", stacklevel=2)
            forward = model
            return model(images)  # type: ignore[no-any-return]

    return call
