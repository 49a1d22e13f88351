"""Muon, an optimizer that orthogonalises the momentum of conv weights; torch's own takes only matrices."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# Learning rate of all other weights, relative to that of the conv weights.
_OTHERS = 20
# Linear layers learn as if their outputs were divided by 9, like the logits of Jordan's network: without the division,
# that takes 1/81 of the learning rate and 81 times the weight decay. At the full rate, their weights grow unchecked.
_DIVISOR = 9
_ITERATIONS = 3
_LEAST_NORM = 1e-12
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(Optimizer):
    """Conv weights by Muon, all others by SGD; both with Nesterov momentum.

    The update of a conv layer, as a matrix (filters, inputs), is made orthogonal, so that rare directions count as much
    as those that dominate the gradient (Jordan et al., "Muon: An optimizer for hidden layers in neural networks",
    2024, kellerjordan.github.io/posts/muon). Conv weights keep their initial norm, as in that author's CIFAR-10 speed
    run: batch normalisation after the layer cancels the norm.

    Args:
        weights: Parameters; those with four or more dimensions are conv weights.
        lr: Relative size of a conv layer's update (norm of the update / norm of the weights). Vectors take 20 times
            this learning rate, matrices a quarter of it.
        momentum: Nesterov momentum of all weights.
        weight_decay: L2 penalty of vectors; that of matrices is 81 times as high. Conv weights have none.
    """

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        weights = list(weights)
        groups = [
            {"params": [weight for weight in weights if weight.ndim >= 4], "lr": lr, "conv": True},
            {"params": [weight for weight in weights if weight.ndim < 2], "lr": lr * _OTHERS, "conv": False},
            {
                "params": [weight for weight in weights if weight.ndim in (2, 3)],
                "lr": lr * _OTHERS / _DIVISOR**2,
                "weight_decay": weight_decay * _DIVISOR**2,
                "conv": False,
            },
        ]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    # Makes GradScaler leave it to `step` to unscale the gradients, and to skip the update if one of them is not finite;
    # otherwise GradScaler waits for the device after each batch to find out.
    _step_supports_amp_scaling = True

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient."""
        scale: Tensor | None = getattr(self, "grad_scale", None)
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if scale is not None:
                    weight.grad.div_(scale)
                decay = 0.0 if group["conv"] else group["weight_decay"]
                gradient = weight.grad.add(weight, alpha=decay)
                state = self.state[weight]
                if not state:
                    state["velocity"] = torch.zeros_like(weight)
                velocity = state["velocity"]
                before = None if found_inf is None else (weight.clone(), velocity.clone())
                velocity.mul_(group["momentum"]).add_(gradient)
                direction = gradient.add_(velocity, alpha=group["momentum"])
                if group["conv"]:
                    _update_conv(weight, direction, group["lr"])
                else:
                    weight.sub_(direction, alpha=group["lr"])
                if found_inf is not None and before is not None:
                    for changed, kept in zip((weight, velocity), before, strict=True):
                        changed.copy_(torch.where(found_inf > 0, kept, changed))


def _update_conv(weight: Tensor, direction: Tensor, lr: float) -> None:
    norm = weight.norm()
    step = orthogonalised(direction.flatten(1)).reshape(weight.shape)
    # The step of a layer of dead ReLUs is 0, and so is the norm of weights that start at 0: neither changes.
    weight.sub_(step.to(weight.dtype) * (lr * norm / step.norm().clamp_min(_LEAST_NORM)))
    weight.mul_(norm / weight.norm().clamp_min(_LEAST_NORM))


def orthogonalised(matrix: Tensor) -> Tensor:
    """Approximately U @ V.T of a matrix U @ S @ V.T, in bf16; its singular values lie near 1.

    Three Newton-Schulz iterations with the coefficients of Jordan et al.
    """
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    wide = (matrix.T if tall else matrix).to(torch.bfloat16)
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    return wide.T if tall else wide  # type: ignore[no-any-return]
