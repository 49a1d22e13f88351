"""Averages of weights over the batches of a training (Polyak & Juditsky, 1992)."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]

_WARM_UP = 10  # batches after which the average first remembers more than a half


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of a model whose `update_parameters` lets it follow the model slowly.

    The n-th update keeps the share min(decay, n / (n + 10)) of what was before, so that a short training is not
    averaged with its random start. Buffers are averaged too: the statistics of a batch normalisation belong to the
    weights that they were taken with.
    """

    @torch.no_grad()
    def follow(averages: Tensors, values: Tensors, updates: Tensor | int) -> None:
        if not averages[0].is_floating_point():  # how many batches a batch normalisation has seen
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)
            return
        # A tensor, as the count is one: reading it would wait for the device.
        share = torch.clamp(_WARM_UP / (torch.as_tensor(updates, device=averages[0].device) + _WARM_UP), min=1 - decay)
        steps = torch._foreach_sub(values, averages)
        torch._foreach_mul_(steps, share)
        torch._foreach_add_(averages, steps)

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
