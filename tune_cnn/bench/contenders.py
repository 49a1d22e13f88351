"""What is timed: a trial as every sweep runs it, the loop written by hand, and the convolutions alone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import nn

from tune_cnn import data, models
from tune_cnn.bench import by_hand
from tune_cnn.data import Images, ImageSet
from tune_cnn.settings import Settings
from tune_cnn.training import AUTOCAST
from tune_cnn.training.memory import keep_freed_memory
from tune_cnn.trial import Trial, evaluated_at_once


class Contender(Protocol):
    """One of those that take turns."""

    def train(self) -> Sequence[float]:
        """Train a round's images once; return the losses, if there are any."""

    def validate(self) -> Sequence[float]:
        """Validate a round's images once; return the losses, if there are any."""


class Round(NamedTuple):
    """What each turn works on.

    Attributes:
        settings: Of a trial without end; an epoch is a turn.
        images: As many to train as a turn needs, and no more than that to validate.
    """

    settings: Settings
    images: Images

    @classmethod
    def of(cls, settings: Settings, batches: int) -> "Round":
        """Load the images of a trial and keep what so many training batches need.

        Raises:
            DataError: The images cannot be found or read.
        """
        images = data.load(settings.data)
        train, validation, test = (_first(part, batches * settings.bs_train) for part in images[:3])
        return cls(
            replace(settings, epochs=10**6, early_stopping=None), Images(train, validation, test, images.classes)
        )


def _first(images: ImageSet, count: int) -> ImageSet:
    return ImageSet(images.images[:count].copy(), images.labels[:count].copy())


class Ours:
    """A trial as every sweep runs it."""

    def __init__(self, work: Round) -> None:
        self.trial = Trial(work.settings, work.images)

    def train(self) -> Sequence[float]:
        return self.trial.trainer.train_epoch(self.trial.train_batches, verbose=False).losses

    def validate(self) -> Sequence[float]:
        return self.trial.trainer.test_epoch(self.trial.validation_batches, verbose=False).losses


class ByHand:
    """The loop written by hand, in fp32, with Adam, whatever else the settings ask for."""

    def __init__(self, work: Round) -> None:
        self.loop = loop_by_hand(
            work.settings, by_hand.pairs(*work.images.train), by_hand.pairs(*work.images.validation)
        )

    def train(self) -> Sequence[float]:
        return self.loop.train_epoch()[0]

    def validate(self) -> Sequence[float]:
        return self.loop.measure(self.loop.validation)[0]


def loop_by_hand(settings: Settings, train: by_hand.Pairs, validation: by_hand.Pairs) -> by_hand.Loop:
    """The loop written by hand for a trial, before its first epoch."""
    if settings.seed is not None:
        torch.manual_seed(settings.seed)
    if settings.ycn:
        model = models.build(settings)
    else:
        sizes = settings.data.in_size, settings.data.classes
        model = by_hand.conv_classifier(*sizes, settings.filters, settings.pool_every, settings.hidden_dims)
    return by_hand.Loop(model, train, validation, settings.bs_train, settings.lr, settings.reg)


class Convolutions:
    """The limit: a network's conv layers alone, one after the other, in the trial's number format and channels last.

    A training batch is each layer's forward pass and the gradients of its weights and, but for the first layer, of its
    input. Nothing else is done, and each layer finds its images where it left them.
    """

    def __init__(self, work: Round) -> None:
        self.settings, self.images = work
        keep_freed_memory()
        dtype = AUTOCAST.get(self.settings.precision, torch.float32)
        with torch.device("meta"):
            model = models.build(self.settings)
        self.layers = [
            _Convolution(conv, height, width, dtype) for conv, height, width in models.conv_layers(model, self.settings)
        ]

    @torch.inference_mode()
    def train(self) -> Sequence[float]:
        batch, count = self.settings.bs_train, self.images.train.count
        for index, layer in enumerate(self.layers):
            layer.run(batch, math.ceil(count / batch), backward=True, gradient_of_input=index > 0)
        return []

    @torch.inference_mode()
    def validate(self) -> Sequence[float]:
        batch = evaluated_at_once(torch.device("cpu"), self.settings.precision)
        count = self.images.validation.count
        for layer in self.layers:
            layer.run(batch, math.ceil(count / batch), backward=False)
        return []


class _Convolution:
    def __init__(self, conv: nn.Conv2d, height: int, width: int, dtype: torch.dtype) -> None:
        self.size = conv.in_channels, height, width
        weight = torch.randn(conv.weight.shape, dtype=dtype)
        self.weight = weight.to(memory_format=torch.channels_last)
        self.bias = torch.randn(conv.out_channels, dtype=dtype) if conv.bias is not None else None

    def run(self, batch: int, times: int, backward: bool, gradient_of_input: bool = False) -> None:
        images = torch.randn(batch, *self.size, dtype=self.weight.dtype).to(memory_format=torch.channels_last)
        for _ in range(times):
            result = torch.conv2d(images, self.weight, self.bias, padding=1)
            if backward:
                wanted = [gradient_of_input, True, self.bias is not None]
                sizes = None if self.bias is None else [len(self.bias)]
                # The result stands for its gradient, which has the same size and layout.
                torch.ops.aten.convolution_backward(
                    result, images, self.weight, sizes, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
                )


CONTENDERS: dict[str, Callable[[Round], Contender]] = {"ours": Ours, "by_hand": ByHand, "convolutions": Convolutions}
