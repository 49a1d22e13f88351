"""Exponential moving average (EMA) of the weights over the training batches (Polyak & Juditsky, 1992)."""

from itertools import chain

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

_WARM_UP = 10  # batches; see `Ema`


class Ema(AveragedModel):
    """The EMA of a model, updated by `update_parameters`.

    The decay of update n, counted from 0, is min(decay, n / (n + 10)), so that a short training is not averaged with
    its random initialisation. Buffers are averaged too: the running statistics of batch normalisation fit the weights.

    It replaces PyTorch's own update, which copies its counter from CPU to GPU at each batch, and waits for it.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the averages towards the model's current values."""
        weight = torch.clamp(_WARM_UP / (self.n_averaged + _WARM_UP), min=1 - self._decay).item()
        is_first = int(self.n_averaged) == 0
        mine, theirs = (chain(module.parameters(), module.buffers()) for module in (self.module, model))
        averages, values = [], []
        for average, value in zip(mine, theirs, strict=True):
            if not is_first and average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:  # first update, or the integer `num_batches_tracked` of batch normalisation
                average.copy_(value)
        if averages:
            steps = torch._foreach_sub(values, averages)
            torch._foreach_mul_(steps, weight)
            torch._foreach_add_(averages, steps)
        self.n_averaged += 1
