"""One trial's settings, their rules, and the trial id.

A trial is one distinct training. Its id is a hash of everything that decides its numbers, the images included, and of
nothing else: not its name, nor where the images lie, nor on how many cores it runs.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from tune_cnn.errors import ConfigError
from tune_cnn.rules import Rule, check, flag, integer, integers, number, one_of, text

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
        lr: Learning rate; with a schedule, its highest. That of `muon` is the share of its norm by which a conv layer
            moves.
        reg: Weight decay. That of `adam` and `sgd` is added to the gradient (L2); that of `adamw` is not
            (Loshchilov & Hutter, 2019, arXiv:1711.05101); that of `muon` is added to it outside of the conv layers.
        filters_per_layer: K, the filters of the conv layers of each block.
        layers_per_block: L, conv layers with each number of filters.
        pool_every: P, conv layers before each max-pooling.
        hidden_dims: Widths of the hidden fully-connected layers.
        ycn: Train YourCodeNet instead of ConvClassifier.
        init: First weights of ConvClassifier: `default`, PyTorch's, or `he` (He et al., 2015, arXiv:1502.01852).
        optimizer: `adam`, `adamw`, `sgd`, which has Nesterov's momentum, or `muon.Muon`, which has it too.
        momentum: Of `sgd` and `muon`.
        schedule: What happens to the learning rate from batch to batch after the warm-up: `constant`; `linear`, down
            to 0 at the end of the last epoch; `cosine`, the same along half a cosine.
        warmup: The share of all batches in which the learning rate rises to `lr`.
        label_smoothing: The share of the target that goes to all classes (Szegedy et al., 2016, arXiv:1512.00567); in
            training only.
        flip: Mirror every second training image, chosen at random.
        translate: Shift each training image by up to so many pixels in each direction; its edges are mirrored.
        cutout: Blank a square of so many pixels in each training image (DeVries & Taylor, 2017, arXiv:1708.04552).
        average: Validate, test and keep an average of the weights, in which each batch keeps this share of what was
            before (Polyak & Juditsky, 1992); 0: as the network wants it, which is the weights themselves for
            ConvClassifier and an average over some 500 batches for YourCodeNet.
        test_views: In the final test, average the scores of so many views of each image: 1, itself; 2, also mirrored;
            6, also both shifted by a pixel, to the upper left and to the lower right.
        precision: Numbers of the forward and backward pass: `fp32`; `tf32`, on GPUs; `bf16` or `fp16`, by autocast.
        compile: Compile the network with `torch.compile`.
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
    init: str = "default"
    optimizer: str = "adam"
    momentum: float = 0.9
    schedule: str = "constant"
    warmup: float = 0.0
    label_smoothing: float = 0.0
    flip: bool = False
    translate: int = 0
    cutout: int = 0
    average: float = 0.0
    test_views: int = 1
    precision: str = "fp32"
    compile: bool = False
    data: DataSettings = DataSettings()

    def __post_init__(self) -> None:
        for key in ("lr", "reg", "momentum", "warmup", "label_smoothing", "average"):
            object.__setattr__(self, key, float(getattr(self, key)))  # 1 and 1.0 are two texts in a hash
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
        # So that a new setting leaves the ids of the trials that are there already as they are.
        for key in OPTIONAL:
            if getattr(self, key) == getattr(Settings, key):
                del values[key]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]


SETTINGS_RULES: dict[str, Rule] = {
    "seed": integer(0, optional=True),
    "bs_train": integer(1),
    "bs_test": integer(1, optional=True),
    "batches": integer(1),
    "epochs": integer(1),
    "early_stopping": integer(1, optional=True),
    "lr": number(0, above=True),
    "reg": number(0),
    "filters_per_layer": integers("[64]", least_items=1),
    "layers_per_block": integer(1),
    "pool_every": integer(1),
    "hidden_dims": integers("[100, 100]", least_items=0),
    "ycn": flag(),
    "init": one_of("default", "he"),
    "optimizer": one_of("adam", "adamw", "sgd", "muon"),
    "momentum": number(0, below=1),
    "schedule": one_of("constant", "linear", "cosine"),
    "warmup": number(0, below=1),
    "label_smoothing": number(0, below=1),
    "flip": flag(),
    "translate": integer(0),
    "cutout": integer(0),
    "average": number(0, below=1),
    "test_views": Rule("1, 2 or 6", lambda v: v in (1, 2, 6) and not isinstance(v, bool | float)),
    "precision": one_of("fp32", "tf32", "bf16", "fp16"),
    "compile": flag(),
}

_NAMES = list(SETTINGS_RULES)
# The arguments of `run_experiment` end with `ycn`; these are its further keywords.
OPTIONAL = tuple(_NAMES[_NAMES.index("ycn") + 1 :])

DATA_RULES: dict[str, Rule] = {
    "source": one_of(*SOURCES),
    "path": text(optional=True),
    "in_size": Rule(
        "[channels, height, width] with 3 channels, such as [3, 32, 32]",
        lambda v: integers("", least_items=3).holds(v) and len(v) == 3 and v[0] == 3,
    ),
    "train_images": integer(20, optional=True),
    "test_images": integer(1, optional=True),
    "seed": integer(0),
    "classes": integer(1),
    "fingerprint": text(optional=True),
}


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
