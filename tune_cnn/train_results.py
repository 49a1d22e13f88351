"""Results of a training: per batch, per epoch and per fit."""

import math
from collections.abc import Sequence
from itertools import chain
from statistics import fmean
from typing import Any, NamedTuple

from tune_cnn.errors import ResultError


def chance(classes: int) -> float:
    """The accuracy of guessing, in percent."""
    return 100 / classes


def learned_above(classes: int, images: int | None = None, majority: float = 0.0) -> float:
    """Validation accuracy, in percent, above which a network counts as having learned: 1.5 times that of guessing.

    With few images, guessing may do better by luck: the limit is at least three standard deviations above guessing on
    that many `images`, if known. If the classes are so unequal that always predicting the most frequent one, which
    scores `majority` percent, would exceed that, the limit is three standard deviations above `majority`.
    """
    guessing = chance(classes)
    needed = max(1.5 * guessing, guessing + _luck(guessing, images))
    return needed if majority <= needed else majority + _luck(majority, images)


def _luck(accuracy: float, images: int | None) -> float:
    """Margin for luck, in percent: three standard deviations of an accuracy reached without looking at the images.

    If one class has more than half of them, predicting another must first make up for what that loses on average.
    """
    if not images:
        return 0.0
    if accuracy <= 50:
        return 3 * math.sqrt(accuracy * (100 - accuracy) / images)
    loss = 2 * accuracy - 100
    return (math.hypot(300 / math.sqrt(images), loss) - loss) / 2


def epoch_means(losses: Sequence[float], epochs: int) -> list[float]:
    """The mean of each epoch's losses, in nats."""
    return [fmean(part) for epoch in range(1, epochs + 1) if (part := of_epoch(losses, epoch, epochs))]


def of_epoch(losses: Sequence[float], epoch: int, epochs: int) -> Sequence[float]:
    """The losses of an epoch, counted from 1; in other programs' files, epochs may differ in length or be empty."""
    start, end = (round(number * len(losses) / epochs) for number in (epoch - 1, epoch))
    return losses[start:end]


class BatchResult(NamedTuple):
    """One batch: mean loss in nats, and number of correctly classified images."""

    loss: float
    num_correct: int


class EpochResult(NamedTuple):
    """One pass over the data: the loss of each batch in nats, and the accuracy in percent."""

    losses: list[float]
    accuracy: float


class FitResult(NamedTuple):
    """The history of a training: every batch's loss in nats, and every epoch's accuracy in percent.

    `test_loss` and `test_acc` are those of the validation set.
    """

    num_epochs: int
    train_loss: list[float]
    train_acc: list[float]
    test_loss: list[float]
    test_acc: list[float]

    @classmethod
    def empty(cls) -> "FitResult":
        return cls(0, [], [], [], [])

    @classmethod
    def from_state(cls, values: Any, equal_epochs: bool = True) -> "FitResult":
        """Restore a history from the `_asdict` in a checkpoint; raise a ResultError if it is not one."""
        try:
            history = cls(**values)
            epochs = history.num_epochs
            counts = [len(curve) for curve in history[1:]]
            are_numbers = all(type(value) is float for value in chain(*history[1:]))
            are_equal = not any(n % max(epochs, 1) for n in counts)
            if not are_numbers or counts[1] != epochs or counts[3] != epochs or (equal_epochs and not are_equal):
                raise ValueError("its curves do not fit together")
        except (TypeError, ValueError) as error:
            raise ResultError(f"it has no history ({error})") from error
        return history

    def with_epoch(self, train: EpochResult, validation: EpochResult) -> "FitResult":
        """The history with one more epoch."""
        return FitResult(
            self.num_epochs + 1,
            self.train_loss + train.losses,
            [*self.train_acc, train.accuracy],
            self.test_loss + validation.losses,
            [*self.test_acc, validation.accuracy],
        )

    @property
    def best_epoch(self) -> int:
        """The epoch, counted from 1, that reached the best validation accuracy first; 0 before any epoch."""
        return self.test_acc.index(self.best_accuracy) + 1 if any(map(math.isfinite, self.test_acc)) else 0

    @property
    def best_accuracy(self) -> float:
        """The best validation accuracy in percent; 0 before any epoch; NaN stands for a value that a file lacks."""
        return max(filter(math.isfinite, self.test_acc), default=0.0)

    @property
    def epochs_without_improvement(self) -> int:
        """How many epochs have passed since the best one."""
        return self.num_epochs - self.best_epoch

    @property
    def is_finite(self) -> bool:
        """Whether every loss is a finite number."""
        return all(map(math.isfinite, chain(self.train_loss, self.test_loss)))

    def first_difference(self, other: "FitResult") -> str | None:
        """The first place where another history differs from this one, bit for bit, or None.

        Values that are not finite count as equal: a file has null for all of them.

        >>> FitResult(1, [2.3], [10.0], [2.3], [10.0]).first_difference(FitResult(1, [2.4], [10.0], [2.3], [10.0]))
        'train_loss[0]: 2.3 and 2.4'
        """
        if self.num_epochs != other.num_epochs:
            return f"num_epochs: {self.num_epochs} and {other.num_epochs}"
        for name, mine, theirs in zip(self._fields[1:], self[1:], other[1:], strict=True):
            for index, (a, b) in enumerate(zip(mine, theirs, strict=False)):
                if a != b and (math.isfinite(a) or math.isfinite(b)):
                    return f"{name}[{index}]: {a!r} and {b!r}"
            if len(mine) != len(theirs):
                return f"{name}: {len(mine)} and {len(theirs)} values"
        return None

    def first(self, epochs: int) -> "FitResult":
        """The history of the first `epochs`; all epochs must have the same number of batches."""
        curves = [curve[: len(curve) * epochs // max(self.num_epochs, 1)] for curve in self[1:]]
        return FitResult(epochs, *curves)
