"""One training in a report: its settings, its curves, and the other facts in its result file."""

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from tune_cnn.diagnosis.verdicts import EXPECTATIONS
from tune_cnn.early_stopping import how_ended
from tune_cnn.errors import ConfigError
from tune_cnn.files import parse_json
from tune_cnn.result_files import load_result_file, readable
from tune_cnn.settings import KEYS, Settings, parse_data, parse_settings
from tune_cnn.texts import setting_text, symbol
from tune_cnn.train_results import FitResult, chance, learned_above

UNCLEAR = "stopped before it was clear"  # by a scheduler, so it did not get all of its epochs to learn in
VERDICTS = ("learned", "did not learn", UNCLEAR, "diverged", "failed", "unfinished", "no accuracies")

_GRID = ("filters_per_layer", "layers_per_block")
_MACHINE = {"run_name", "out_dir", "checkpoints", "device"}  # config keys that do not affect the results


@dataclass(frozen=True, eq=False)
class Run:
    """One training."""

    names: tuple[str, ...]  # names of its experiments
    settings: Settings  # the config keys that we know
    history: FitResult | None = None  # None without a result file
    facts: Mapping[str, Any] = field(default_factory=dict)  # from `Trial.summary`; {} if the file has none
    failure: str | None = None  # why it failed, in one line, if it did
    unknown: Mapping[str, str] = field(default_factory=dict)  # config keys of other programs, values as texts

    @cached_property
    def conditions(self) -> dict[str, str]:
        """All settings that distinguish trainings, except K, L and the seed, as texts; None is left out."""
        values = {key: value for key, value in self.settings.identity().items() if key not in (*_GRID, "seed")}
        return {key: text for key, text in {**_texts(values), **self.unknown}.items() if key != "data.path"}

    @cached_property
    def told(self) -> dict[str, str]:
        """K, L, and the conditions."""
        k, depth = map(setting_text, (self.settings.filters_per_layer, self.settings.layers_per_block))
        return {"K": k, "L": depth, **self.conditions}

    @cached_property
    def values(self) -> dict[str, Any]:
        """All settings as in `Settings.flat`, and the config keys of other programs."""
        return {**self.settings.flat(), **self.unknown}

    @property
    def epochs(self) -> int:
        """The number of epochs that it ran."""
        return self.history.num_epochs if self.history else 0

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        if self.failure is not None:
            return "failed"
        if self.history is None or self.facts.get("unfinished") is True:
            return "unfinished"
        if self.facts.get("stop_reason") == "diverged" or not self.history.is_finite:
            return "diverged"
        if self.accuracy is None:
            return "no accuracies"
        if self.accuracy > self.learned_above:
            return "learned"
        return UNCLEAR if self.facts.get("stop_reason") == "scheduler" else "did not learn"

    @property
    def is_finished(self) -> bool:
        """Whether it has final results."""
        return self.verdict not in ("failed", "unfinished")

    @property
    def progress(self) -> str:
        """The verdict, with the epochs so far if the results are not final: `unfinished: 3 of 30 epochs`."""
        if self.is_finished or self.history is None:
            return self.verdict
        return f"{self.verdict}: {self.epochs} of {self.settings.epochs} epochs"

    @property
    def ended(self) -> str:
        """How it ended, or how far it is; empty if it is finished and the file does not say how."""
        reason = self.facts.get("stop_reason")
        if self.is_finished and not isinstance(reason, str):
            return ""
        return how_ended(reason, self.epochs, self.settings.epochs, self.settings.early_stopping, self.failure)

    @property
    def accuracy(self) -> float | None:
        """The best validation accuracy in percent."""
        return self.history.best_accuracy if self.history and self.best_epoch else None

    @property
    def best_epoch(self) -> int | None:
        """The epoch, counted from 1, of the best validation accuracy."""
        return (self.history.best_epoch or None) if self.history else None

    @property
    def learned_above(self) -> float:
        """The validation accuracy, in percent, above which it counts as learned."""
        return learned_above(self.settings.data.classes, self.validation_images, self.blind[1])

    @property
    def blind(self) -> tuple[str, float]:
        """The baseline and its accuracy in percent: chance, or the most frequent class if that looks like learning."""
        classes, majority = max(self.settings.data.classes, 2), self.number("majority_accuracy") or 0.0
        is_unequal = majority > learned_above(classes, self.validation_images)
        return ("the most frequent class", majority) if is_unequal else ("chance", chance(classes))

    @property
    def expected(self) -> str | None:
        """The verdict of the diagnosis before the training; None if the file has none."""
        verdict = self.part("diagnosis").get("verdict")
        return verdict if verdict in EXPECTATIONS else None

    @property
    def score_spread(self) -> float | None:
        """The spread of the logits over different images before the training."""
        spread = self.part("diagnosis").get("score_spread")
        return spread if isinstance(spread, float) and math.isfinite(spread) else None

    @property
    def search(self) -> dict[str, Mapping[str, Any]]:
        """The distributions that settings were drawn from, such as `{"lr": {"loguniform": [1e-4, 1e-2]}}`."""
        return {key: value for key, value in self.part("search").items() if isinstance(value, Mapping)}

    @property
    def validation_images(self) -> int | None:
        """The number of validation images, if known."""
        count = self.part("images").get("validation")
        return count if isinstance(count, int) and count > 0 else None

    def number(self, key: str) -> float | None:
        """One of the facts if it is a finite number; otherwise None."""
        value = self.facts.get(key)
        return value if is_number(value) and math.isfinite(value) else None

    def part(self, key: str) -> Mapping[str, Any]:
        """One of the facts if it is a mapping; otherwise {}."""
        value = self.facts.get(key)
        return value if isinstance(value, Mapping) else {}

    def is_same_training(self, other: "Run") -> bool:
        """Whether two runs with equal conditions, K and L are one training; if their curves differ, they are not."""
        if self.settings.seed != other.settings.seed:
            return False
        if self.history is None or other.history is None:
            return True
        return self.history.first_difference(other.history) is None


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """Read result files, in natural order of their names; damaged and other files are named on stderr."""
    return [run for _, run in readable(paths, read_run)]


def read_run(path: Path) -> Run:
    """Read one result file.

    Raises:
        ResultError: It is damaged, or not a result file.
        ConfigError: K or L has an impossible value.
    """
    config, history, facts = load_result_file(path)
    kw = config.pop("kw", None)
    given = {**config, **(kw if isinstance(kw, dict) else {"kw": kw})}
    ours = {*KEYS, *_MACHINE, "data"}
    known: dict[str, Any] = {}
    unknown = {key: value for key, value in given.items() if key not in ours}
    for key in [key for key in KEYS if key in given]:
        # Other programs use the same names with other values. The first valid reading counts: trying all takes long.
        first = [*islice((value for value in _readings(given[key]) if _is_setting(key, value)), 1)]
        (known if first or key in _GRID else unknown)[key] = first[0] if first else given[key]
    for key in _GRID:
        if key not in known and (match := re.search(rf"(?:^|_){symbol(key)}(\d+(?:-\d+)*)", path.stem)):
            numbers = [int(number) for number in match[1].split("-")]
            known[key] = numbers if key == "filters_per_layer" else numbers[0]
    data, problems = parse_data(given.get("data", "cifar10"))
    if problems:
        unknown["data"] = given["data"]
    if isinstance(facts.get("data"), dict):  # these include the number of classes
        resolved, problems = parse_data({**facts["data"], "path": data.path})
        data = data if problems else resolved
    settings = parse_settings({**known, "data": data}, str(path))
    names = {path.stem, str(config.get("run_name"))}
    texts = {key: text for key, text in _texts(unknown).items() if names.isdisjoint(_named(key, text))}
    return Run((path.stem,), settings, history, facts, unknown=texts)


def _texts(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten all values to texts under dotted keys, such as `kw.model.type`; None and empty mappings are left out."""
    texts: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            texts |= _texts(value, f"{prefix}{key}.")
        elif value is not None:
            texts[prefix + key] = setting_text(value)
    return texts


def _readings(value: Any) -> list[Any]:
    """Possible meanings of a value: itself, a text parsed as JSON, one number as a list, 0 and 1 as flags."""
    if isinstance(value, str):
        text, value = value, value.lower()
        with suppress(ValueError):
            value = parse_json(value.encode())
        return [text, *_readings(value)] if value != text.lower() else [text, value, [value]]
    return [value, [value], bool(value)] if value in (0, 1) else [value, [value]]


def _is_setting(key: str, value: object) -> bool:
    try:
        parse_settings({key: value}, "")
    except ConfigError:
        return False
    return True


def _named(key: str, text: str) -> list[str]:
    """The names in a value, perhaps within a path; one of the experiment itself differs for every experiment."""
    parts = [part.partition(".")[0] for part in re.split(r"[/\\]", text)]
    return [text, *parts] if "name" in key or len(parts) > 1 else []
