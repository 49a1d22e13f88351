"""Muon: momentum whose steps turn a conv layer's weights in all directions equally."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# Times the learning rate of the conv layers, for the other weights; matrices are trained as if what they give were
# divided by 9 afterwards, as the scores are in Jordan's network: at the full rate, nothing keeps their size in bounds.
_OTHERS = 20
_DIVISOR = 9
_ITERATIONS = 3
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(Optimizer):
    """Conv weights by Muon, all others by SGD; both with Nesterov's momentum.

    The step of a conv layer, as a matrix (filters, inputs), is made orthogonal, so that rare directions count as much
    as those that dominate the gradient (Jordan et al., "Muon: An optimizer for hidden layers in neural networks",
    2024, kellerjordan.github.io/posts/muon). The weights keep the norm that they were drawn with, as in that author's
    CIFAR-10 speed run, and `lr` is the share of it by which a step moves them: behind a batch normalisation, the norm
    itself has no effect.

    Args:
        weights: The conv weights among them are those with four dimensions.
        lr: Of the conv weights; that of vectors is twenty times as high, that of matrices a quarter.
        momentum: Of both.
        weight_decay: Of vectors, added to the gradient (L2); that of matrices is 81 times as high.
    """

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        weights = list(weights)
        groups = [
            {"params": [weight for weight in weights if weight.ndim == 4], "lr": lr, "conv": True},
            {"params": [weight for weight in weights if weight.ndim < 2], "lr": lr * _OTHERS, "conv": False},
            {
                "params": [weight for weight in weights if weight.ndim in (2, 3)],
                "lr": lr * _OTHERS / _DIVISOR**2,
                "weight_decay": weight_decay * _DIVISOR**2,
                "conv": False,
            },
        ]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                decay = 0.0 if group["conv"] else group["weight_decay"]
                gradient = weight.grad.add(weight, alpha=decay)
                state = self.state[weight]
                if not state:
                    state["velocity"] = torch.zeros_like(weight)
                velocity = state["velocity"]
                velocity.mul_(group["momentum"]).add_(gradient)
                direction = gradient.add_(velocity, alpha=group["momentum"])
                if group["conv"]:
                    _turn(weight, direction, group["lr"])
                else:
                    weight.sub_(direction, alpha=group["lr"])


def _turn(weight: Tensor, direction: Tensor, share: float) -> None:
    norm = weight.norm()
    step = orthogonalised(direction.flatten(1)).reshape(weight.shape)
    weight.sub_(step.to(weight.dtype) * (share * norm / step.norm()))
    weight.mul_(norm / weight.norm())


def orthogonalised(matrix: Tensor) -> Tensor:
    """Roughly U @ V.T of a matrix U @ S @ V.T, in bf16: its singular values lie about 1.

    By Newton-Schulz iterations with the coefficients of Jordan et al., which have no need of an exact 1.
    """
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    wide = (matrix.T if tall else matrix).to(torch.bfloat16)
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    return wide.T if tall else wide  # type: ignore[no-any-return]
