"""The settings of a training: what they may be, how they are read, and the trial id.

A trial is one distinct training. Its id is a hash of everything that decides its numbers, the images included, and of
nothing else: not its name, nor where the images lie, nor on how many cores it runs.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt, MinLen
from pydantic import AfterValidator, Field, with_config

from tune_cnn.errors import ConfigError
from tune_cnn.rules import NO_OTHER_KEYS, Count, Flag, Number, OneOf, Text, Whole, check, plain
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
# The settings that may follow from another one.
_LEADERS = {"bs_test": "bs_train", "model_fingerprint": "model"}
_LEADERS |= dict.fromkeys(("data.in_size", "data.classes", "data.fingerprint"), "data.source")


def _argument(value: Any) -> Any:
    """An argument of a custom network's constructor, as JSON has it and reads it again."""
    for item in value if isinstance(value, list) else [value]:
        is_number = (isinstance(item, int) and abs(item) < 2**63) or (isinstance(item, float) and math.isfinite(item))
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
        batches: The most training batches an epoch takes.
        epochs: The most epochs.
        early_stopping: Stop after so many epochs without a better validation accuracy; None: never.
        lr: Learning rate; with a schedule, its peak. For `muon`: norm of a conv layer's update, relative to the norm
            of its weights.
        reg: Weight decay. `adam` and `sgd`: L2 penalty, added to the gradient; `adamw`: decoupled from the gradient
            (Loshchilov & Hutter, 2019, arXiv:1711.05101); `muon`: L2 penalty on all weights but those of conv layers.
        filters_per_layer: K, the filters of the conv layers of each block.
        layers_per_block: L, conv layers with each number of filters.
        pool_every: P, conv layers before each max-pooling.
        hidden_dims: Widths of the hidden fully-connected layers.
        ycn: Train YourCodeNet instead of ConvClassifier.
        init: First weights: `default`, those that the network gives itself, or `he`, drawn for all its conv and linear
            layers (He et al., 2015, arXiv:1502.01852).
        optimizer: `adam`, `adamw`, `sgd`, which has Nesterov's momentum, or `muon.Muon`, which has it too.
        momentum: Momentum of `sgd` and `muon`.
        schedule: What happens to the learning rate from batch to batch after the warm-up: `constant`; `linear`, down
            to 0 at the end of the last epoch; `cosine`, the same along half a cosine.
        warmup: Fraction of all training batches over which the learning rate rises linearly to `lr`.
        label_smoothing: As in `nn.CrossEntropyLoss` (Szegedy et al., 2016, arXiv:1512.00567); in the training loss
            only.
        flip: Mirror every second training image, chosen at random.
        translate: Shift each training image by up to so many pixels in each direction; its edges are mirrored.
        cutout: Blank a square of so many pixels in each training image (DeVries & Taylor, 2017, arXiv:1708.04552).
        average: Decay per batch of an exponential moving average (EMA) of the weights, which is then validated, tested
            and saved in their place (Polyak & Juditsky, 1992); 0: the default of the network, which is no EMA for
            ConvClassifier and one over some 500 batches for YourCodeNet.
        test_views: In the final test, average the scores of so many views of each image: 1, itself; 2, also mirrored;
            6, also both shifted by a pixel, to the upper left and to the lower right.
        precision: Numbers of the forward and backward pass: `fp32`; `bf16` or `fp16`, by autocast. On a GPU, fp32 is
            PyTorch's default, with convolutions in TF32; `ieee` uses no TF32, `tf32` uses it everywhere.
        compile: Compile the network with `torch.compile`.
        cuda_graph: On a GPU, train by a CUDA graph where that gives the same numbers.
        model: The class of a custom network, in a file or an installed module, such as `nets.py:WideNet`; see
            `models.custom`. None: ConvClassifier or YourCodeNet.
        model_args: Further arguments of its constructor.
        model_fingerprint: What tells its source file from another; found out from the file.
        data: Which images.
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
    init: Annotated[str, OneOf("default", "he")] = "default"
    optimizer: Annotated[str, OneOf("adam", "adamw", "sgd", "muon")] = "adam"
    momentum: _Fraction = 0.9
    schedule: Annotated[str, OneOf("constant", "linear", "cosine")] = "constant"
    warmup: _Fraction = 0.0
    label_smoothing: _Fraction = 0.0
    flip: Flag = False
    translate: Whole = 0
    cutout: Whole = 0
    average: _Fraction = 0.0
    test_views: Annotated[int, OneOf(1, 2, 6)] = 1
    precision: Annotated[str, OneOf("fp32", "ieee", "tf32", "bf16", "fp16")] = "fp32"
    compile: Flag = False
    cuda_graph: Flag = False
    model: Reference | None = None
    model_args: dict[str, Argument] | None = None
    model_fingerprint: Text | None = None
    data: DataSettings = field(default_factory=DataSettings)

    def __post_init__(self) -> None:
        for key in ("lr", "reg", "momentum", "warmup", "label_smoothing", "average"):
            object.__setattr__(self, key, float(getattr(self, key)))  # 1 and 1.0 are two texts in a hash
        if not self.model_args:
            object.__setattr__(self, "model_args", None)
        if self.bs_test is None:
            object.__setattr__(self, "bs_test", max(self.bs_train // 4, 1))

    @property
    def filters(self) -> list[int]:
        """The width of every conv layer: each K, L times."""
        return [k for k in self.filters_per_layer for _ in range(self.layers_per_block)]

    def __hash__(self) -> int:
        return hash(self.trial_id)

    @property
    def network(self) -> str:
        """The name of the network's class."""
        return self.model.rpartition(":")[2] if self.model else "YourCodeNet" if self.ycn else "ConvClassifier"

    @property
    def label(self) -> str:
        """K and L, as in the names of experiments: `K64-128_L2`; of a custom network its name."""
        return self.network if self.model else f"K{setting_text(self.filters_per_layer)}_L{self.layers_per_block}"

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON values; `parse_settings` reads them back."""
        values = {key: getattr(self, key) for key in KEYS} | {"data": self.data.to_json()}
        return json.loads(json.dumps(values))  # type: ignore[no-any-return]

    def identity(self) -> dict[str, Any]:
        """All that decides the numbers, as JSON values: files by what is in them, not by where they lie."""
        model = self.model and os.path.basename(self.model)
        values = {**self.to_json(), "model": model, "data": self.data.identity()}
        del values["cuda_graph"]  # which gives the same numbers
        return values

    def flat(self) -> dict[str, Any]:
        """As `identity`, key by key: `lr`, `data.source`, and a custom network's arguments, as `model_args.width`."""
        values = self.identity()
        parts = {ARGUMENT_PREFIX: values.pop("model_args") or {}, "data.": values.pop("data")}
        return values | {prefix + key: value for prefix, part in parts.items() for key, value in part.items()}

    @cached_property
    def trial_id(self) -> str:
        """8 hex digits over everything that decides the numbers."""
        values = self.identity()
        # So that a new setting leaves the ids of the trials that are there already as they are.
        for key in values.keys() & OPTIONAL:
            if getattr(self, key) == getattr(Settings, key):
                del values[key]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return digest(text)[:8]


def varied_keys(experiments: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys of `Settings.flat`, or such, whose values differ between some experiments; an absent one is None."""
    first, *others = experiments = list(experiments) or [{}]
    keys = dict.fromkeys(key for values in experiments for key in values)
    return [key for key in keys if any(other.get(key) != first.get(key) for other in others)]


def telling_keys(experiments: Iterable[Mapping[str, Any]]) -> list[str]:
    """The `varied_keys` that do not follow from another, as `bs_test` does from `bs_train` unless it is set."""
    tables = list(experiments)

    def follows(key: str) -> bool:
        pairs = {(str(table.get(_LEADERS[key])), str(table.get(key))) for table in tables}
        return len(pairs) == len({leader for leader, _ in pairs})

    return [key for key in varied_keys(tables) if key not in _LEADERS or not follows(key)]


def with_arguments_apart(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which each argument of a custom network is a key of its own: `model_args.width`."""
    arguments = values.get("model_args")
    if not isinstance(arguments, Mapping):
        return dict(values)
    apart = {f"{ARGUMENT_PREFIX}{key}": value for key, value in arguments.items()}
    return {key: value for key, value in values.items() if key != "model_args"} | apart


def with_arguments_together(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `with_arguments_apart`."""
    arguments = {
        key.removeprefix(ARGUMENT_PREFIX): value for key, value in values.items() if key.startswith(ARGUMENT_PREFIX)
    }
    others = {key: value for key, value in values.items() if not key.startswith(ARGUMENT_PREFIX)}
    return others | ({"model_args": arguments} if arguments else {})


KEYS = tuple(field.name for field in fields(Settings) if field.name != "data")
# The arguments of `run_experiment` end with `ycn`; these are its further keywords.
OPTIONAL = KEYS[KEYS.index("ycn") + 1 :]


def parse_settings(values: Mapping[str, Any], place: str = "settings") -> Settings:
    """Settings from plain values, or from those of a notebook (`rules.plain`); what is absent keeps its default.

    Raises:
        ConfigError: With every fault, and the place: a file, or what was called.
    """
    data, problems = parse_data(values.get("data", DataSettings()))
    settings, found = check(Settings, {**plain(values), "data": data})
    if settings is None or problems:
        raise ConfigError(place, found + problems)
    if fault := size_fault(settings):
        raise ConfigError(place, [fault])
    return settings


def size_fault(settings: Settings) -> str | None:
    """Whether the network has more layers than anybody can mean; None if not."""
    convs = len(settings.filters_per_layer) * settings.layers_per_block
    for key, count, kind in (("layers_per_block", convs, "conv"), ("hidden_dims", len(settings.hidden_dims), "hidden")):
        if count > _MOST_LAYERS:
            return f"{key}: {count:,} {kind} layers; give at most {_MOST_LAYERS:,}"
    return None
