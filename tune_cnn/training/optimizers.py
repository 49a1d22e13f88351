"""Optimizers and learning rate schedules."""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tune_cnn.settings import Settings
from tune_cnn.training.muon import Muon

# PyTorch's optimizers import torch._dynamo, which takes a second and 150 MB in each process, only to exclude their
# methods from compilation. Only the model is ever compiled here, so the undecorated methods are called.


def _undecorated(kind: Any) -> Callable[..., Optimizer]:
    return type(kind.__name__, (kind,), {"step": torch.no_grad()(inspect.unwrap(kind.step))})


_SGD, _Adam, _AdamW = map(_undecorated, (SGD, Adam, AdamW))


def _spare_dynamo() -> None:
    """Mark the methods decorated by `torch._disable_dynamo` as disabled already, so that it imports nothing."""
    for method in vars(Optimizer).values():
        if original := getattr(method, "__wrapped__", None):
            original.__dynamo_disable = original


def build_optimizer(weights: Iterable[nn.Parameter], settings: Settings) -> Optimizer:
    """The optimizer of a trial; PyTorch's are fused, and so pass over the weights once instead of several times.

    A new one also needs its name in `Settings.optimizer`, and its limits in `diagnosis`.
    """
    _spare_dynamo()
    lr, reg, momentum = settings.lr, settings.reg, settings.momentum
    match settings.optimizer:
        case "sgd":
            sgd = _SGD(weights, lr, momentum=momentum, weight_decay=reg, nesterov=momentum > 0, fused=True)
            if momentum > 0:  # PyTorch would leave it uninitialised if the first step in fp16 overflows
                for weight in sgd.param_groups[0]["params"]:
                    sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
            return sgd
        case "adam":
            return _Adam(weights, lr, weight_decay=reg, fused=True)
        case "adamw":
            return _AdamW(weights, lr, weight_decay=reg, fused=True)
        case "muon":
            return Muon(weights, lr, momentum, reg)
        case other:
            raise NotImplementedError(other)


def build_scheduler(optimizer: Optimizer, settings: Settings, batches: int) -> LambdaLR | None:
    """The learning rate scheduler, to step after each of the `batches` of all epochs; None for a constant rate."""
    if settings.schedule == "constant" and settings.warmup == 0:
        return None
    return LambdaLR(optimizer, lambda batch: learning_rate_factor(settings, batch, batches))


def learning_rate_factor(settings: Settings, batch: int, batches: int) -> float:
    """Factor of `lr`, 0 to 1, at a batch, counted from 0, of the `batches` of all epochs."""
    rising = settings.warmup * batches
    if batch < rising:
        return (batch + 1) / (rising + 1)
    progress = min((batch - rising) / (batches - rising), 1.0)
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1 - progress if settings.schedule == "linear" else 1.0
