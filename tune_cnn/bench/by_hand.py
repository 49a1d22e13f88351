"""What a user would write by hand, without this package: the network and the loop that ours must agree with.

Batches are collated image by image from floats in memory, Adam is as it comes, every batch's loss is read, and the
validation goes in batches of a quarter. Nothing in it is made slow on purpose, and nothing is tuned.
"""

import os
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tune_cnn import data
from tune_cnn.data import downloads
from tune_cnn.settings import DataSettings

# Pairs of an image, float (C, H, W) in [0, 1], and its label.
Pairs = list[tuple[Tensor, int]]


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


def pairs(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Pairs:
    """Images (N, H, W, C) of bytes, each by itself as `ToTensor` makes it.

    Not one tensor of all: once a process has freed an array of some MB, glibc keeps what its training steps free, too,
    which a script that reads its images one by one cannot count on.
    """
    return [
        (torch.tensor(image).permute(2, 0, 1).contiguous().float() / 255, int(label))
        for image, label in zip(images, labels, strict=True)
    ]


def read(source: DataSettings) -> tuple[Pairs, Pairs, Pairs]:
    """Training, validation and test images, as many as a trial has; files are read one by one, through torchvision.

    Args:
        source: Which; resolved.
    """
    if source.source not in ("cifar10", "image_folder"):
        drawn = data.load(source)
        return pairs(*drawn.train), pairs(*drawn.validation), pairs(*drawn.test)
    from torchvision import datasets, transforms

    to_floats = transforms.Compose([transforms.Resize(source.in_size[1:]), transforms.ToTensor()])
    if source.source == "image_folder":
        assert source.path is not None
        folders = [os.path.join(source.path, part) for part in ("train", "test")]
        train, test = (datasets.ImageFolder(folder, to_floats) for folder in folders)
    else:
        root = os.path.expanduser(source.path or downloads.DEFAULT_ROOT)
        train, test = (datasets.CIFAR10(root, is_train, to_floats) for is_train in (True, False))
    fitted, validated = (np.sort(part) for part in data.split(source.train_images or len(train)))
    tested = range(source.test_images or len(test))
    return [train[i] for i in fitted], [train[i] for i in validated], [test[i] for i in tested]


class Loop:
    """Adam, cross-entropy, shuffled batches, and a validation in batches of a quarter.

    Args:
        model: Maps images (B, C, H, W) to scores (B, classes).
        train: Images to train on.
        validation: Images to validate on.
        bs_train: Images per training batch.
        lr: Learning rate.
        reg: Weight decay.
    """

    def __init__(self, model: nn.Module, train: Pairs, validation: Pairs, bs_train: int, lr: float, reg: float) -> None:
        self.model = model
        self.loader: DataLoader[Any] = DataLoader(train, bs_train, shuffle=True)  # type: ignore[arg-type]
        self.validation = validation
        self.bs_validation = max(bs_train // 4, 1)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=reg)
        self.loss_fn = nn.CrossEntropyLoss()

    def train_epoch(self, batches: int | None = None) -> tuple[list[float], int]:
        """Train on every image once, or on so many batches; return each batch's loss, and how many were right."""
        losses, correct = [], 0
        self.model.train()
        for images, labels in islice(self.loader, batches):
            self.optimizer.zero_grad()
            scores = self.model(images)
            loss = self.loss_fn(scores, labels)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
            correct += _count_correct(scores, labels)
        return losses, correct

    @torch.no_grad()
    def measure(self, images_and_labels: Pairs) -> tuple[list[float], int]:
        """Each batch's loss, and how many images were right."""
        losses, correct = [], 0
        self.model.eval()
        for images, labels in DataLoader(images_and_labels, self.bs_validation):  # type: ignore[arg-type]
            scores = self.model(images)
            losses.append(self.loss_fn(scores, labels).item())
            correct += _count_correct(scores, labels)
        return losses, correct

    def fit(self, epochs: int, batches: int | None = None) -> History:
        """Train, with a validation after each epoch."""
        history = History([], [], [], [])
        for _ in range(epochs):
            losses, correct = self.train_epoch(batches)
            history.train_loss.extend(losses)
            history.train_correct.append(correct)
            losses, correct = self.measure(self.validation)
            history.validation_loss.extend(losses)
            history.validation_correct.append(correct)
        return history


def _count_correct(scores: Tensor, labels: Tensor) -> int:
    return int((scores.argmax(dim=1) == labels).sum())
