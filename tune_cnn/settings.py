"""One trial's settings, their rules, and the trial id.

A trial is one distinct training. Its id is a hash of everything that decides its numbers, the images included, and of
nothing else: not its name, nor where the images lie, nor on how many cores it runs.
"""

import difflib
import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from tune_cnn.errors import ConfigError

SOURCES = ("cifar10", "image_folder", "shapes")


@dataclass(frozen=True)
class DataSettings:
    """Which images.

    Attributes:
        source: `cifar10`, `image_folder` or `shapes`.
        path: Where the images lie, for `cifar10` and `image_folder`; not part of the trial id.
        in_size: Channels, height and width of an image; a folder's images are resized to it.
        train_images: How many training images (before the validation set is split off); None: all that there are.
        test_images: How many test images; None: all.
        seed: Of the drawings, for `shapes`.
        classes: How many classes; filled in by `data.resolve`.
        fingerprint: What tells one folder of images from another; filled in by `data.resolve`.
    """

    source: str = "cifar10"
    path: str | None = None
    in_size: tuple[int, int, int] = (3, 32, 32)
    train_images: int | None = None
    test_images: int | None = None
    seed: int = 0
    classes: int = 10
    fingerprint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All of them as JSON values."""
        return {**asdict(self), "in_size": list(self.in_size)}

    def identity(self) -> dict[str, Any]:
        """What decides the images, as JSON values."""
        return {key: value for key, value in self.to_json().items() if key != "path"}


@dataclass(frozen=True)
class Settings:
    """Everything that decides the numbers of one training.

    Attributes:
        seed: Of all random draws; None: a different run each time.
        bs_train: Images per training batch.
        bs_test: Images per reported validation loss; None: a quarter of `bs_train`.
        batches: The most training batches an epoch takes.
        epochs: The most epochs.
        early_stopping: Stop after so many epochs without a better validation accuracy; None: never.
        lr: Learning rate of Adam.
        reg: Weight decay of Adam.
        filters_per_layer: K, the filters of the conv layers of each block.
        layers_per_block: L, conv layers with each number of filters.
        pool_every: P, conv layers before each max-pooling.
        hidden_dims: Widths of the hidden fully-connected layers.
        ycn: Train YourCodeNet instead of ConvClassifier.
        data: Which images.
    """

    seed: int | None = None
    bs_train: int = 128
    bs_test: int | None = None
    batches: int = 100
    epochs: int = 100
    early_stopping: int | None = 3
    lr: float = 1e-3
    reg: float = 1e-3
    filters_per_layer: tuple[int, ...] = (64,)
    layers_per_block: int = 2
    pool_every: int = 2
    hidden_dims: tuple[int, ...] = (1024,)
    ycn: bool = False
    data: DataSettings = DataSettings()

    def __post_init__(self) -> None:
        # 1 and 1.0 are one learning rate, but two texts in a hash.
        object.__setattr__(self, "lr", float(self.lr))
        object.__setattr__(self, "reg", float(self.reg))
        if self.bs_test is None:
            object.__setattr__(self, "bs_test", max(self.bs_train // 4, 1))

    @property
    def filters(self) -> list[int]:
        """The width of every conv layer: each K, L times."""
        return [k for k in self.filters_per_layer for _ in range(self.layers_per_block)]

    @property
    def label(self) -> str:
        """K and L, as in the names of experiments: `K64-128_L2`."""
        return f"K{'-'.join(map(str, self.filters_per_layer))}_L{self.layers_per_block}"

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON values; `from_json` reads them back."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Settings":
        """Settings from what `to_json` gave.

        Raises:
            ConfigError: A key or a value is not one of ours.
        """
        return parse_settings(values, "settings")

    @property
    def trial_id(self) -> str:
        """8 hex digits over everything that decides the numbers."""
        values = {**self.to_json(), "data": self.data.identity()}
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]


class Rule(NamedTuple):
    """What a value must be: in words, and as a test."""

    wanted: str
    holds: Callable[[Any], bool]


def _is_int(value: object, least: int) -> bool:
    # PyTorch counts in 64 bits; nothing that is counted here comes near.
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _is_int_list(value: object, least_items: int) -> bool:
    return isinstance(value, list | tuple) and len(value) >= least_items and all(_is_int(v, 1) for v in value)


def integer(least: int, optional: bool = False) -> Rule:
    """A whole number from `least` up; with `optional`, also null."""
    wanted = f"a whole number from {least} up" + (", or null" if optional else "")
    return Rule(wanted, lambda v: _is_int(v, least) or (optional and v is None))


def text(optional: bool = False) -> Rule:
    """A text that is not empty; with `optional`, also null."""
    return Rule(
        "a text" + (", or null" if optional else ""),
        lambda v: (isinstance(v, str) and v != "") or (optional and v is None),
    )


SETTINGS_RULES: dict[str, Rule] = {
    "seed": integer(0, optional=True),
    "bs_train": integer(1),
    "bs_test": integer(1, optional=True),
    "batches": integer(1),
    "epochs": integer(1),
    "early_stopping": integer(1, optional=True),
    "lr": Rule("a number above 0", lambda v: _is_number(v) and v > 0),
    "reg": Rule("a number from 0 up", lambda v: _is_number(v) and v >= 0),
    "filters_per_layer": Rule("a list of whole numbers from 1 up, such as [64]", lambda v: _is_int_list(v, 1)),
    "layers_per_block": integer(1),
    "pool_every": integer(1),
    "hidden_dims": Rule("a list of whole numbers from 1 up, such as [100, 100]", lambda v: _is_int_list(v, 0)),
    "ycn": Rule("true or false", lambda v: isinstance(v, bool)),
}

DATA_RULES: dict[str, Rule] = {
    "source": Rule(f"one of {', '.join(SOURCES)}", lambda v: v in SOURCES),
    "path": text(optional=True),
    "in_size": Rule(
        "[channels, height, width] with 3 channels, such as [3, 32, 32]",
        lambda v: _is_int_list(v, 3) and len(v) == 3 and v[0] == 3,
    ),
    "train_images": integer(20, optional=True),
    "test_images": integer(1, optional=True),
    "seed": integer(0),
    "classes": integer(1),
    "fingerprint": text(optional=True),
}


def check(values: Mapping[str, Any], rules: Mapping[str, Rule], prefix: str = "") -> list[str]:
    """The faults of a mapping, one line each: unknown keys, and values that break their rule.

    >>> check({"learning_rte": 1, "epochs": "ten"}, SETTINGS_RULES, "settings.")
    ["settings.learning_rte: unknown key; did you mean 'lr'?", "settings.epochs: 'ten' is not a whole number from 1 up"]
    """
    problems = []
    for key, value in values.items():
        if key not in rules:
            problems.append(f"{prefix}{key}: unknown key; {suggest(str(key), rules)}")
        elif not rules[key].holds(value):
            problems.append(f"{prefix}{key}: {value!r} is not {rules[key].wanted}")
    return problems


# What users of other tools type, and no spelling distance finds.
_SYNONYMS = {
    "learning_rate": "lr", "learning_rte": "lr", "weight_decay": "reg", "batch_size": "bs_train",
    "patience": "early_stopping", "num_epochs": "epochs", "max_epochs": "epochs", "filters": "filters_per_layer",
    "K": "filters_per_layer", "L": "layers_per_block", "P": "pool_every",
}  # fmt: skip


def suggest(key: str, known: Collection[str]) -> str:
    """The remedy for an unknown key: the nearest known one, or all of them."""
    # A synonym goes first: batch_size is spelled nearer to batches than to bs_train.
    near = [key] if _SYNONYMS.get(key) in known else difflib.get_close_matches(key, known, n=1)
    near = near or difflib.get_close_matches(key, _SYNONYMS, n=1, cutoff=0.8)
    target = _SYNONYMS.get(near[0], near[0]) if near else None
    return f"did you mean '{target}'?" if target in known else f"keys are {', '.join(known)}"


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}")
_NAME_RULE = "use at most 100 letters, digits and . _ + = - without '..', and begin with a letter or a digit"


def name_problems(name: object) -> list[str]:
    """What keeps the name of an experiment or a sweep from being a file name everywhere: nothing, or one fault."""
    if isinstance(name, str) and _NAME.fullmatch(name) and ".." not in name:
        return []
    shown = name if not isinstance(name, str) or len(name) <= 120 else name[:100] + "..."
    return [f"{shown!r} cannot be a name; {_NAME_RULE}"]


def parse_data(value: object, prefix: str = "data") -> tuple[DataSettings, list[str]]:
    """Read `cifar10`, `image_folder:/path`, or a mapping with the keys of `DataSettings`; return the faults too."""
    if isinstance(value, DataSettings):
        return value, []
    if isinstance(value, str):
        source, _, path = value.partition(":")
        value = {"source": source} | ({"path": path} if path else {})
    if not isinstance(value, Mapping):
        return DataSettings(), [f"{prefix}: {value!r} is not a source; write one of {', '.join(SOURCES)}, or a mapping"]
    problems = check(value, DATA_RULES, f"{prefix}.")
    if not problems and value.get("source") == "image_folder" and not value.get("path"):
        problems.append(f"{prefix}: image_folder needs its folder; write image_folder:/path/to/images")
    if not problems and value.get("source") == "shapes" and value.get("path"):
        problems.append(f"{prefix}: shapes are drawn on the spot and take no path; write shapes")
    if (
        not problems
        and value.get("source", "cifar10") == "cifar10"
        and tuple(value.get("in_size", (3, 32, 32))) != (3, 32, 32)
    ):
        problems.append(f"{prefix}.in_size: the images of cifar10 are [3, 32, 32]; leave it out")
    if not problems and value.get("source", "cifar10") != "shapes" and value.get("seed", 0) != 0:
        problems.append(f"{prefix}.seed: only shapes are drawn by a seed; leave it out")
    if problems:
        return DataSettings(), problems
    values = dict(value)
    if "in_size" in values:
        values["in_size"] = tuple(values["in_size"])
    return DataSettings(**values), []


def parse_settings(values: Mapping[str, Any], place: str, prefix: str = "") -> Settings:
    """Settings from plain values.

    Args:
        values: Any of the keys of `Settings`; what is absent keeps its default.
        place: The file or the call, for the message.
        prefix: What stands before a key in the message, such as `settings.`.

    Raises:
        ConfigError: With every fault.
    """
    rest = {key: value for key, value in values.items() if key != "data"}
    data, problems = parse_data(values.get("data", DataSettings()))
    problems = check(rest, SETTINGS_RULES, prefix) + problems
    if problems:
        raise ConfigError(place, problems)
    for key in ("filters_per_layer", "hidden_dims"):
        if key in rest:
            rest[key] = tuple(rest[key])
    return Settings(**rest, data=data)


assert set(SETTINGS_RULES) | {"data"} == {field.name for field in fields(Settings)}
