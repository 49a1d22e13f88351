"""Exponential moving average (EMA) of the weights over the training batches (Polyak & Juditsky, 1992)."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]

_WARM_UP = 10  # batches; see `averaged`


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """The EMA of a model, updated by its `update_parameters`.

    The decay of the n-th update is min(decay, n / (n + 10)), so that a short training is not averaged with its random
    initialisation. Buffers are averaged too: running statistics of a batch normalisation belong to their weights.
    """

    @torch.no_grad()
    def update(averages: Tensors, values: Tensors, updates: Tensor | int) -> None:
        if not averages[0].is_floating_point():  # `num_batches_tracked` of a batch normalisation
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)
            return
        # Computed on the device: reading the count would wait for it.
        weight = torch.clamp(_WARM_UP / (torch.as_tensor(updates, device=averages[0].device) + _WARM_UP), min=1 - decay)
        steps = torch._foreach_sub(values, averages)
        torch._foreach_mul_(steps, weight)
        torch._foreach_add_(averages, steps)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
