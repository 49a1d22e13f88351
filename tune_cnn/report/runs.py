"""One training of a report: what was asked for, and what its result file tells."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from tune_cnn.diagnosis.verdicts import VERDICTS as EXPECTATIONS
from tune_cnn.errors import ConfigError
from tune_cnn.result_files import load_result_file
from tune_cnn.settings import KEYS, Settings, parse_data, parse_settings
from tune_cnn.train_results import FitResult

VERDICTS = ("learned", "did not learn", "diverged", "failed", "unfinished")


@dataclass(frozen=True, eq=False)
class Run:
    """One training.

    Attributes:
        names: The experiments that it served.
        settings: What decided its numbers; without the place of the images.
        history: Its curves; None if it is not finished.
        facts: What `Trial.summary` gave; {} where the file has none.
        failure: Why it failed, in one line, if it did.
    """

    names: tuple[str, ...]
    settings: Settings
    history: FitResult | None = None
    facts: Mapping[str, Any] | None = None
    failure: str | None = None

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        if self.history is None:
            return "failed" if self.failure is not None else "unfinished"
        if self.fact("stop_reason") == "diverged" or not self.history.is_finite:
            return "diverged"
        return "learned" if self.history.has_learned(self.settings.data.classes) else "did not learn"

    @property
    def accuracy(self) -> float | None:
        """The best validation accuracy in percent."""
        return max(filter(math.isfinite, self.history.test_acc), default=None) if self.history else None

    @property
    def training_accuracy(self) -> float | None:
        """The training accuracy of the best epoch, in percent."""
        return self.history.train_acc[self.history.best_epoch - 1] if self.history and self.history.train_acc else None

    @property
    def images_seen(self) -> int | None:
        """How many training images the training has processed, each as often as it came."""
        if self.history is None:
            return None
        most = len(self.history.train_loss) * self.settings.bs_train
        images = self.fact("images")
        train = images.get("train") if isinstance(images, Mapping) else None
        return min(most, train * self.history.num_epochs) if isinstance(train, int) else most  # a last batch is short

    @property
    def work(self) -> float | None:
        """Multiply-adds of the forward passes over all training images."""
        multiply_adds, images_seen = self.number("multiply_adds"), self.images_seen
        return None if multiply_adds is None or images_seen is None else multiply_adds * images_seen

    @property
    def expected(self) -> str | None:
        """The verdict of the diagnosis before the training; None where the file has none."""
        diagnosis = self.fact("diagnosis")
        verdict = diagnosis.get("verdict") if isinstance(diagnosis, Mapping) else None
        return verdict if verdict in EXPECTATIONS else None

    @property
    def score_spread(self) -> float | None:
        """How far the scores of different images differed before the training."""
        diagnosis = self.fact("diagnosis")
        spread = diagnosis.get("score_spread") if isinstance(diagnosis, Mapping) else None
        return spread if isinstance(spread, float) and math.isfinite(spread) else None

    def epoch_losses(self) -> list[float]:
        """The mean training loss of each epoch, in nats."""
        if self.history is None or not self.history.num_epochs:
            return []
        losses, epochs = self.history.train_loss, self.history.num_epochs
        edges = [round(i * len(losses) / epochs) for i in range(epochs + 1)]
        return [fmean(losses[a:b]) if b > a else math.nan for a, b in pairwise(edges)]

    def fact(self, key: str) -> Any:
        """One of the facts; None where there is none."""
        return (self.facts or {}).get(key)

    def number(self, key: str) -> float | None:
        """One of the facts if it is a finite number."""
        value = self.fact(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return value if is_number else None


def read_run(path: Path) -> Run:
    """Read one result file.

    Raises:
        ResultError: It is damaged, or not one of ours.
        ConfigError: Its config is not that of an experiment.
    """
    config, history, facts = load_result_file(path)
    extra = config["kw"] if isinstance(config.get("kw"), dict) else {}
    data, problems = parse_data(extra.get("data", "cifar10"))
    resolved = facts.get("data")
    if isinstance(resolved, dict):  # knows the number of classes
        data, problems = parse_data({**resolved, "path": data.path})
    if problems:
        raise ConfigError(str(path), problems)
    values = {key: value for key, value in {**config, **extra}.items() if key in KEYS}
    settings = parse_settings({**values, "data": data}, str(path))
    return Run((path.stem,), without_path(settings), history if history.num_epochs else None, facts)


def without_path(settings: Settings) -> Settings:
    """The settings, wherever the images lie."""
    return replace(settings, data=replace(settings.data, path=None))
