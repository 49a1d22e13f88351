"""Optimizers and the course of their learning rate."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from tune_cnn.settings import Settings
from tune_cnn.training.muon import Muon


def build_optimizer(weights: Iterable[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """The optimizer of a trial; those of PyTorch in their fused form: one pass over all weights."""
    lr, reg, momentum = settings.lr, settings.reg, settings.momentum
    if settings.optimizer == "sgd":
        nesterov = momentum > 0
        return torch.optim.SGD(weights, lr, momentum=momentum, weight_decay=reg, nesterov=nesterov, fused=True)
    if settings.optimizer == "muon":
        return Muon(weights, lr, momentum, reg)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(weights, lr, weight_decay=reg, fused=True)


def build_scheduler(optimizer: torch.optim.Optimizer, settings: Settings, batches: int) -> LambdaLR | None:
    """What changes the learning rate after each batch; None where it stays as it is.

    Args:
        optimizer: What `build_optimizer` gave.
        settings: Of the same trial.
        batches: Training batches in all epochs together.
    """
    if settings.schedule == "constant" and settings.warmup == 0:
        return None
    return LambdaLR(optimizer, lambda batch: learning_rate_factor(settings, batch, batches))


def learning_rate_factor(settings: Settings, batch: int, batches: int) -> float:
    """The share of `lr` with which a batch is trained.

    Args:
        settings: Their `schedule` and `warmup`.
        batch: Its number, from 0.
        batches: Training batches in all epochs together.
    """
    rising = settings.warmup * batches
    if batch < rising:
        return (batch + 1) / (rising + 1)
    progress = min((batch - rising) / (batches - rising), 1.0)
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1 - progress if settings.schedule == "linear" else 1.0
