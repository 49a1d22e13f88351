"""The schema of a config file: its keys, and which values each may have by itself."""

from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import AfterValidator, BaseModel, Field, create_model, with_config

from tune_cnn.rules import NO_OTHER_KEYS, AsChoice, Count, Number, Text, Whole
from tune_cnn.settings import Argument, Settings
from tune_cnn.settings.data import FOUND_OUT, DataSettings

_Auto = Annotated[Literal["auto"], AsChoice]


@with_config(NO_OTHER_KEYS)
@dataclass(frozen=True)
class Resources:
    """What one trial gets.

    Attributes:
        cpus_per_trial: Cores, and as many threads.
        gpus_per_trial: GPUs, or a fraction of one.

    What `auto` means depends on the machines that train; see `sweep/resources.py`.
    """

    cpus_per_trial: _Auto | Count = 1
    gpus_per_trial: _Auto | Annotated[Number, Ge(0), Le(1)] | Count = "auto"


@with_config(NO_OTHER_KEYS)
@dataclass(frozen=True)
class Asha:
    """Tune's ASHAScheduler: at certain epochs, a trial goes on only if it is among the best that got so far.

    Attributes:
        grace_period: Number of epochs after which a trial can first be stopped.
        reduction_factor: One trial in so many goes on; the next decision comes after so many times the epochs.
    """

    grace_period: Count = 1
    reduction_factor: Annotated[Number, Gt(1)] = 4.0


@with_config(NO_OTHER_KEYS)
@dataclass(frozen=True)
class Median:
    """Tune's MedianStoppingRule: a trial stops if its best is below the median of the others' means so far.

    Attributes:
        grace_period: Number of epochs after which a trial can first be stopped.
        min_samples_required: Least number of other trials of which a median is taken.
    """

    grace_period: Count = 1
    min_samples_required: Count = 3


SCHEDULERS = {"asha": Asha, "median": Median}


def _distinct(values: list[Any]) -> list[Any]:
    seen = set()
    for value in values:
        hashable = str(value) if isinstance(value, list | dict) else value
        if hashable in seen:  # such as 1.0 after 1
            raise ValueError(list(value) if isinstance(value, tuple) else value)
        seen.add(hashable)
    return values


def _axis(hint: Any) -> Any:
    """The type of a list of distinct values of a type."""
    return Annotated[list[hint], MinLen(1), AfterValidator(_distinct), Field(json_schema_extra={"uniqueItems": True})]


def _model(name: str, **keys: Any) -> Any:
    return create_model(name, __config__=NO_OTHER_KEYS, **keys)


@cache
def file_model(arguments: tuple[str, ...] = ()) -> type[BaseModel]:
    """Model that checks each value of a file; `arguments` are those of a custom network, such as `model_args.width`."""
    settings: dict[str, Any] = {field.name: (field.type, field.default) for field in fields(Settings)}
    settings = {key: value for key, value in settings.items() if key not in ("data", "model_fingerprint")}
    settings |= dict.fromkeys(arguments, (Argument, None))
    drawn: dict[str, Any] = dict.fromkeys(settings, (Any, None))
    axes: dict[str, Any] = {key: (_axis(hint), Field(default_factory=list)) for key, (hint, _) in settings.items()}
    data = {field.name: (field.type, field.default) for field in fields(DataSettings) if field.name not in FOUND_OUT}
    keys = {
        "run_name": (Text, "Names of the experiments, with placeholders.", "exp_K{K}_L{L}"),
        "grid": (_model("Grid", **axes), "Settings that vary, each with its values.", {"layers_per_block": [2, 4]}),
        "seeds": (_axis(Whole), "Seeds with which each cell of the grid is trained.", [1, 2, 3]),
        "settings": (_model("Settings", **settings), "Settings of all experiments.", {"lr": 1e-3}),
        "data": (_model("Data", **data), "Images.", {"source": "cifar10"}),
        "resources": (Resources, "What one trial gets.", {"cpus_per_trial": 1}),
        "search": (
            _model("Search", **drawn),
            "Settings that are drawn at random, each with its distribution.",
            {"lr": "{loguniform: [1.0e-4, 1.0e-2]}"},
        ),
        "samples": (Count, "How many samples are drawn, for each cell of the grid.", 16),
        "search_seed": (Whole, "Seed of the draws.", 0),
        "algorithm": (Annotated[Literal["random", "optuna"], AsChoice], "What draws the samples.", "optuna"),
        "scheduler": (
            _model("Scheduler", **{name: (kind, None) for name, kind in SCHEDULERS.items()}),
            "Which of Tune's schedulers stops trials that fall behind.",
            {"asha": "{grace_period: 3}"},
        ),
    }
    file: type[BaseModel] = _model(
        "ConfigFile",
        **{
            key: (kind, Field(... if key == "run_name" else None, description=text, examples=[example]))
            for key, (kind, text, example) in keys.items()
        },
    )
    return file
