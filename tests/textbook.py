"""What a user would write by hand, without tune_cnn: the network and the loop that ours must agree with."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class History(NamedTuple):
    """One value for each batch, and how many images were right in each epoch."""

    train_loss: list[float]
    train_correct: list[int]
    validation_loss: list[float]
    validation_correct: list[int]


def conv_classifier(
    in_size: Sequence[int], classes: int, filters: Sequence[int], pool_every: int, hidden_dims: Sequence[int]
) -> nn.Sequential:
    """`[(Conv -> ReLU)*P -> MaxPool]*(N/P) -> (Linear -> ReLU)*M -> Linear`, one layer after the other."""
    channels, height, width = in_size
    layers: list[nn.Module] = []
    for index, filter_count in enumerate(filters, start=1):
        layers += [nn.Conv2d(channels, filter_count, kernel_size=3, padding=1), nn.ReLU()]
        channels = filter_count
        if index % pool_every == 0:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    layers.append(nn.Flatten())
    features = channels * height * width
    for hidden in hidden_dims:
        layers += [nn.Linear(features, hidden), nn.ReLU()]
        features = hidden
    return nn.Sequential(*layers, nn.Linear(features, classes))


def float_dataset(images: np.ndarray, labels: np.ndarray) -> TensorDataset:
    """Images (N, H, W, C) of bytes as floats (N, C, H, W) in [0, 1], contiguous, as `ToTensor` makes them."""
    floats = torch.tensor(images).permute(0, 3, 1, 2).contiguous().float() / 255
    return TensorDataset(floats, torch.tensor(labels))


def fit(
    model: nn.Module, train: TensorDataset, validation: TensorDataset, bs_train: int, lr: float, reg: float, epochs: int
) -> History:
    """Adam, cross-entropy, shuffled batches, and a validation in batches of a quarter after each epoch."""
    loader = DataLoader(train, bs_train, shuffle=True)
    validation_loader = DataLoader(validation, max(bs_train // 4, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=reg)
    loss_fn = nn.CrossEntropyLoss()

    def count_correct(scores: Tensor, labels: Tensor) -> int:
        return int((scores.argmax(dim=1) == labels).sum())

    history = History([], [], [], [])
    for _ in range(epochs):
        history.train_correct.append(0)
        history.validation_correct.append(0)
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            scores = model(images)
            loss = loss_fn(scores, labels)
            loss.backward()
            optimizer.step()
            history.train_loss.append(loss.item())
            history.train_correct[-1] += count_correct(scores, labels)
        model.eval()
        with torch.no_grad():
            for images, labels in validation_loader:
                scores = model(images)
                history.validation_loss.append(loss_fn(scores, labels).item())
                history.validation_correct[-1] += count_correct(scores, labels)
    return history
