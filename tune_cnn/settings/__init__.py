"""The settings of a training: their types, how they are parsed, and the trial id.

A trial is one distinct training. Its id is a hash of everything that decides its numbers, the images included, and of
nothing else: not of its name, of where the images lie, or of the number of cores.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt, MinLen
from pydantic import AfterValidator, Field, with_config

from tune_cnn.errors import ConfigError
from tune_cnn.rules import NO_OTHER_KEYS, AsChoice, Count, Flag, Number, Text, Whole, check, plain
from tune_cnn.settings.data import SOURCES, DataSettings, parse_data
from tune_cnn.texts import digest, setting_text

_MOST_LAYERS = 1000  # a mistyped depth is refused before a network of a million layers is built


Reference = Annotated[
    str,
    Field(
        strict=True,
        pattern=r"^([^:\n]+\.py|[A-Za-z_][A-Za-z0-9_.]*):[A-Za-z_][A-Za-z0-9_]*$",
        description="a file or a module, and a class in it",
        examples=["nets.py:WideNet"],
    ),
]
ARGUMENT_PREFIX = "model_args."
# Settings that may follow from another one.
_LEADERS = {"bs_test": "bs_train", "model_fingerprint": "model"}
_LEADERS |= dict.fromkeys(("data.in_size", "data.classes", "data.fingerprint"), "data.source")


def _argument(value: Any) -> Any:
    """Check that JSON can store and restore an argument of a custom network's constructor."""
    for item in value if isinstance(value, list) else [value]:
        is_number = isinstance(item, int | float) and abs(item) < (2**63 if isinstance(item, int) else math.inf)
        if item is not None and not isinstance(item, str) and not is_number:
            raise ValueError("no argument")
    return value


Argument = Annotated[
    Any,
    AfterValidator(_argument),
    Field(description="a number, a text, true, false, null, or a list of such", examples=[32]),
]
_Fraction = Annotated[Number, Ge(0), Lt(1)]


@with_config(NO_OTHER_KEYS)
@dataclass(frozen=True)
class Settings:
    """Everything that decides the numbers of one training.

    Attributes:
        seed: Random seed of the whole training; None: not seeded, so every run differs. It is PyTorch's: what a
            custom network draws with Python's `random` or NumPy differs from run to run.
        bs_train: Images per training batch.
        bs_test: Images per reported validation loss; None: a quarter of `bs_train`.
        batches: Largest number of training batches per epoch.
        epochs: Largest number of epochs.
        early_stopping: Stop after this many epochs without a better validation accuracy; None: never.
        lr: Learning rate; with a schedule, its peak. For `muon`: norm of a conv layer's update, relative to the norm
            of its weights.
        reg: Weight decay. `adam` and `sgd`: L2 penalty, added to the gradient; `adamw`: decoupled from the gradient
            (Loshchilov & Hutter, 2019, arXiv:1711.05101); `muon`: L2 penalty on all weights but those of conv layers.
        filters_per_layer: K, the filters of the conv layers of each block.
        layers_per_block: L, conv layers with each number of filters.
        pool_every: P, conv layers before each max-pooling.
        hidden_dims: Widths of the hidden fully-connected layers.
        ycn: Train YourCodeNet instead of ConvClassifier.
        init: Initial weights: `default`, the network's own, or `he`, drawn for all its conv and linear layers (He et
            al., 2015, arXiv:1502.01852).
        optimizer: `adam`, `adamw`, `sgd` or `muon` (see `training.muon`); the last two have Nesterov momentum.
        momentum: Momentum of `sgd` and `muon`.
        schedule: Learning rate from batch to batch after the warm-up: `constant`; `linear`, falling to 0 at the end of
            the last epoch; `cosine`, the same along half a cosine.
        warmup: Fraction of all training batches over which the learning rate rises linearly to `lr`.
        label_smoothing: As in `nn.CrossEntropyLoss` (Szegedy et al., 2016, arXiv:1512.00567); in the training loss
            only.
        flip: Mirror each training image with probability 1/2.
        translate: Largest random shift of each training image in each direction, in pixels; its edges are mirrored.
        cutout: Side of a square blanked in each training image, in pixels (DeVries & Taylor, 2017, arXiv:1708.04552).
        average: Decay per batch of an exponential moving average (EMA) of the weights, which is then validated, tested
            and saved in their place (Polyak & Juditsky, 1992); 0: the network's default, which is no EMA for
            ConvClassifier, and one over some 500 batches for YourCodeNet.
        test_views: Views of each image whose scores the final test averages: 1, the image; 2, also mirrored; 6, also
            both shifted by a pixel, to the upper left and to the lower right.
        precision: Data type of forward and backward pass: `fp32`; `bf16` or `fp16`, by autocast. On a GPU, `fp32` is
            PyTorch's default, with convolutions in TF32; `ieee` uses no TF32, `tf32` uses it everywhere.
        compile: Compile the network with `torch.compile`.
        cuda_graph: On a GPU, train with a CUDA graph where that gives the same numbers.
        model: The class of a custom network, in a file or an installed module, such as `nets.py:WideNet`; see
            `models.custom`. None: ConvClassifier or YourCodeNet.
        model_args: Further arguments of its constructor.
        model_fingerprint: Hash of its source; computed from the files.
        data: The images.
    """

    seed: Whole | None = None
    bs_train: Count = 128
    bs_test: Count | None = None
    batches: Count = 100
    epochs: Count = 100
    early_stopping: Count | None = 3
    lr: Annotated[Number, Gt(0)] = 1e-3
    reg: Annotated[Number, Ge(0)] = 1e-3
    filters_per_layer: Annotated[tuple[Count, ...], MinLen(1), Field(examples=[[64]])] = (64,)
    layers_per_block: Count = 2
    pool_every: Count = 2
    hidden_dims: Annotated[tuple[Count, ...], Field(examples=[[100, 100]])] = (1024,)
    ycn: Flag = False
    init: Annotated[Literal["default", "he"], AsChoice] = "default"
    optimizer: Annotated[Literal["adam", "adamw", "sgd", "muon"], AsChoice] = "adam"
    momentum: _Fraction = 0.9
    schedule: Annotated[Literal["constant", "linear", "cosine"], AsChoice] = "constant"
    warmup: _Fraction = 0.0
    label_smoothing: _Fraction = 0.0
    flip: Flag = False
    translate: Whole = 0
    cutout: Whole = 0
    average: _Fraction = 0.0
    test_views: Annotated[Literal[1, 2, 6], AsChoice] = 1
    precision: Annotated[Literal["fp32", "ieee", "tf32", "bf16", "fp16"], AsChoice] = "fp32"
    compile: Flag = False
    cuda_graph: Flag = False
    model: Reference | None = None
    model_args: dict[str, Argument] | None = None
    model_fingerprint: Text | None = None
    data: DataSettings = field(default_factory=DataSettings)

    def __post_init__(self) -> None:
        for key in ("lr", "reg", "momentum", "warmup", "label_smoothing", "average"):
            object.__setattr__(self, key, float(getattr(self, key)))  # 1 and 1.0 would be hashed as different texts
        if not self.model_args:
            object.__setattr__(self, "model_args", None)
        if self.bs_test is None:
            object.__setattr__(self, "bs_test", max(self.bs_train // 4, 1))

    @property
    def filters(self) -> list[int]:
        """Widths of all conv layers: each K, L times."""
        return [k for k in self.filters_per_layer for _ in range(self.layers_per_block)]

    def __hash__(self) -> int:
        return hash(self.trial_id)

    @property
    def network(self) -> str:
        """Name of the network's class."""
        return self.model.rpartition(":")[2] if self.model else "YourCodeNet" if self.ycn else "ConvClassifier"

    @property
    def label(self) -> str:
        """K and L, as in the names of experiments: `K64-128_L2`; for a custom network, its name."""
        return self.network if self.model else f"K{setting_text(self.filters_per_layer)}_L{self.layers_per_block}"

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON values; `parse_settings` reads them back."""
        values = {key: getattr(self, key) for key in KEYS} | {"data": self.data.to_json()}
        return json.loads(json.dumps(values))  # type: ignore[no-any-return]

    def identity(self) -> dict[str, Any]:
        """Everything that decides the numbers, as JSON values: of files the contents, not the folder."""
        model = self.model and os.path.basename(self.model)
        values = {**self.to_json(), "model": model, "data": self.data.identity()}
        del values["cuda_graph"]  # it gives the same numbers
        return values

    def flat(self) -> dict[str, Any]:
        """Flatten `identity`: `lr`, `data.source`, and a custom network's arguments such as `model_args.width`."""
        values = self.identity()
        parts = {ARGUMENT_PREFIX: values.pop("model_args") or {}, "data.": values.pop("data")}
        return values | {prefix + key: value for prefix, part in parts.items() for key, value in part.items()}

    @cached_property
    def trial_id(self) -> str:
        """Hash of everything that decides the numbers, as 8 hex digits."""
        values = self.identity()
        # Defaults are left out, so that a new setting does not change the ids of existing trials.
        for key in values.keys() & OPTIONAL:
            if getattr(self, key) == getattr(Settings, key):
                del values[key]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return digest(text)[:8]


def varied_keys(experiments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Keys, as of `Settings.flat`, whose values differ between some experiments; an absent key counts as None."""
    first, *others = experiments = list(experiments) or [{}]
    keys = dict.fromkeys(key for values in experiments for key in values)
    return [key for key in keys if any(other.get(key) != first.get(key) for other in others)]


def telling_keys(experiments: Iterable[Mapping[str, Any]]) -> list[str]:
    """`varied_keys` without those that follow from another, as `bs_test` does from `bs_train` unless it is set."""
    tables = list(experiments)

    def follows(key: str) -> bool:
        pairs = {(str(table.get(_LEADERS[key])), str(table.get(key))) for table in tables}
        return len(pairs) == len({leader for leader, _ in pairs})

    return [key for key in varied_keys(tables) if key not in _LEADERS or not follows(key)]


def with_arguments_apart(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn each argument of a custom network into a key of its own: `model_args.width`."""
    arguments = values.get("model_args")
    if not isinstance(arguments, Mapping):
        return dict(values)
    apart = {f"{ARGUMENT_PREFIX}{key}": value for key, value in arguments.items()}
    return {key: value for key, value in values.items() if key != "model_args"} | apart


def with_arguments_together(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `with_arguments_apart`."""
    together = {key: value for key, value in values.items() if not key.startswith(ARGUMENT_PREFIX)}
    if arguments := {key: value for key, value in values.items() if key not in together}:
        together["model_args"] = {key.removeprefix(ARGUMENT_PREFIX): value for key, value in arguments.items()}
    return together


KEYS = tuple(field.name for field in fields(Settings) if field.name != "data")
# The arguments of `run_experiment` end with `ycn`; these are further keywords.
OPTIONAL = KEYS[KEYS.index("ycn") + 1 :]


def parse_settings(values: Mapping[str, Any], place: str = "settings") -> Settings:
    """Parse settings from plain values, or from a notebook's (see `rules.plain`); absent ones keep their defaults.

    Raises:
        ConfigError: It lists every fault, and `place`: a file or call.
    """
    data, problems = parse_data(values.get("data", DataSettings()))
    settings, found = check(Settings, {**plain(values), "data": data})
    if settings is None or problems:
        raise ConfigError(place, found + problems)
    if fault := size_fault(settings):
        raise ConfigError(place, [fault])
    return settings


def size_fault(settings: Settings) -> str | None:
    """Fault of a network with more layers than anybody can mean; None if there is none."""
    convs = len(settings.filters_per_layer) * settings.layers_per_block
    for key, count, kind in (("layers_per_block", convs, "conv"), ("hidden_dims", len(settings.hidden_dims), "hidden")):
        if count > _MOST_LAYERS:
            return f"{key}: {count:,} {kind} layers; give at most {_MOST_LAYERS:,}"
    return None
