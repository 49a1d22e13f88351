"""One config file: read, checked as a whole, and every fault in it named."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tune_cnn.errors import ConfigError
from tune_cnn.rules import Rule, check, integer, suggest
from tune_cnn.settings import SETTINGS_RULES, DataSettings, parse_data
from tune_cnn.sweep import strict_yaml
from tune_cnn.sweep.run_names import pattern_problems, with_seed

MAX_EXPERIMENTS = 10_000  # of one file: a mistyped grid is refused before it fills the memory


@dataclass(frozen=True)
class Resources:
    """What one trial gets.

    Attributes:
        cpus_per_trial: Cores, and as many threads.
        gpus_per_trial: GPUs, or a fraction of one.

    `auto` is decided by the machines that train; see `resources`.
    """

    cpus_per_trial: int | Literal["auto"] = 1
    gpus_per_trial: float | Literal["auto"] = "auto"


@dataclass(frozen=True)
class ConfigFile:
    """A config file without faults.

    Attributes:
        place: The file, as the user named it.
        run_name: The pattern of the experiments' names.
        grid: The values of each varied settings key, in the order of the file; those of `seeds` come last.
        settings: The settings that do not vary.
        data: Which images, not yet resolved; a relative path has become absolute.
        resources: What one trial gets.
    """

    place: str
    run_name: str
    grid: dict[str, list[Any]]
    settings: dict[str, Any]
    data: DataSettings
    resources: Resources


def _is_gpu_share(value: Any) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0 <= value <= 1 or (1 < value < math.inf and value == int(value))
    return isinstance(value, str) and value == "auto"


RESOURCES_RULES = {
    "cpus_per_trial": Rule("auto, or a whole number from 1 up", lambda v: v == "auto" or integer(1).holds(v)),
    "gpus_per_trial": Rule("auto, a number from 0 to 1, or a whole number", _is_gpu_share),
}

# What to write under each key of a file.
_KEYS = {
    "run_name": "exp_K{K}_L{L}",
    "grid": "layers_per_block: [2, 4]",
    "seeds": "[1, 2, 3]",
    "settings": "lr: 1.0e-3",
    "data": "cifar10",
    "resources": "cpus_per_trial: 1",
}
_AXIS_EXAMPLES = {
    "filters_per_layer": "[[32], [64]]",
    "hidden_dims": "[[100], [100, 100]]",
    "lr": "[1.0e-3, 1.0e-4]",
    "reg": "[0, 1.0e-3]",
    "ycn": "[false, true]",
}


def read_document(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The plain values of a file, and the keys that it writes twice, one line each.

    Raises:
        ConfigError: It cannot be read, is not YAML, or is not a mapping.
    """
    document, problems = strict_yaml.parse(_read_text(path))
    if isinstance(document, dict):
        return document, problems
    if document is None and not problems:
        problems = [f"empty; write at least run_name, such as run_name: {_KEYS['run_name']}"]
    elif document is not None:
        problems.append("not a mapping; write keys such as run_name: and settings:")
    raise ConfigError(str(path), problems)


def check_document(
    document: Mapping[str, Any], path: Path, data: DataSettings | None = None
) -> tuple[ConfigFile | None, list[str]]:
    """Check the values of a file.

    Args:
        document: The plain values.
        path: The file; a relative path of images starts from its folder.
        data: The images to use in place of the file's.

    Returns:
        The file if it has no fault, and its faults, one line each.
    """
    problems = [_unknown_key(key) for key in document if key not in _KEYS]
    grid, settings, resources = (_section(document, key, problems) for key in ("grid", "settings", "resources"))

    good_axes = {}
    for key, values in grid.items():
        found = axis_problems(key, values)
        problems += found
        if not found:
            good_axes[key] = values
    seed_axis = {}
    if "seeds" in document:
        found = seeds_problems(document["seeds"])
        problems += found
        if not found:
            seed_axis = {"seed": document["seeds"]}
    if document.get("grid") == {}:
        problems.append(f"grid: empty; write keys under it, such as {_KEYS['grid']}, or leave it out")
    experiments = math.prod(map(len, [*good_axes.values(), *seed_axis.values()]))
    if experiments > MAX_EXPERIMENTS:
        problems.append(f"grid: {experiments:,} experiments; split it, a file may have {MAX_EXPERIMENTS:,} at most")

    problems += [f"settings.{key}: the grid varies it too; keep one of the two" for key in settings if key in grid]
    sections = {"settings": settings, "grid": grid} if "seeds" in document else {}
    problems += [
        f"{name}.seed: seeds varies it too; keep one of the two" for name in sections if "seed" in sections[name]
    ]
    problems += check(settings, SETTINGS_RULES, "settings.")
    if data is None:
        data, found = parse_source(document.get("data", "cifar10"), path.parent)
        problems += found
    problems += check(resources, RESOURCES_RULES, "resources.")
    if "run_name" in document:
        problems += pattern_problems(document["run_name"], good_axes)
    else:
        problems.append(f"run_name: missing; write a pattern such as {_KEYS['run_name']}")
    if problems:
        return None, problems
    run_name = with_seed(document["run_name"]) if seed_axis else document["run_name"]
    return ConfigFile(str(path), run_name, grid | seed_axis, settings, data, Resources(**resources)), []


def axis_problems(key: str, values: Any) -> list[str]:
    """The faults of one axis of the grid."""
    if key not in SETTINGS_RULES:
        return [f"grid.{key}: unknown key; {suggest(key, SETTINGS_RULES)}"]
    return _list_problems(f"grid.{key}", values, SETTINGS_RULES[key], _AXIS_EXAMPLES.get(key, "[2, 4]"))


def seeds_problems(values: Any) -> list[str]:
    """The faults of the list of seeds, with each of which every cell of the grid is trained."""
    return _list_problems("seeds", values, integer(0), _KEYS["seeds"])


def _list_problems(name: str, values: Any, rule: Rule, example: str) -> list[str]:
    if not isinstance(values, list):
        return [f"{name}: {values!r} is not a list; give its values in brackets, such as {example}"]
    if not values:
        return [f"{name}: an empty list; give at least one value, such as {example}"]
    places = {f"{name}[{i}]": value for i, value in enumerate(values)}
    problems = check(places, dict.fromkeys(places, rule))
    if not problems:
        plain = [tuple(value) if isinstance(value, list) else value for value in values]  # hashable; 1 equals 1.0
        first = {value: place for place, value in reversed([*zip(places, plain, strict=True)])}
        for place, value in zip(places, plain, strict=True):
            if first[value] != place:
                problems.append(f"{place}: {places[place]} stands there twice; keep one")
    return problems


def parse_source(value: Any, folder: Path) -> tuple[DataSettings, list[str]]:
    """Read a value of `data`; a relative path in it starts from `folder`. Return the faults too."""
    if isinstance(value, dict):
        found_out = [key for key in ("classes", "fingerprint") if key in value]
        if found_out:
            return DataSettings(), [f"data.{key}: found out from the images; leave it out" for key in found_out]
    data, problems = parse_data(value)
    if data.path is not None:
        data = replace(data, path=os.path.abspath(folder / os.path.expanduser(data.path)))
    return data, problems


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise ConfigError(str(path), [f"a folder; name the files in it, such as {path / '*.yaml'}"])
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(str(path), ["no such file; name a config file, such as configs/exp1_1.yaml"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"byte {error.start + 1} is not UTF-8; save the file as UTF-8"]) from None
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        raise ConfigError(str(path), [f"cannot be read ({error}); name a file that you may read"]) from None


def _section(document: Mapping[str, Any], key: str, problems: list[str]) -> dict[str, Any]:
    value = document.get(key, {})
    if isinstance(value, dict):
        return value
    fault = "empty" if value is None else f"{value!r} is not a mapping"
    problems.append(f"{key}: {fault}; write keys under it, such as {_KEYS[key]}, or leave it out")
    return {}


def _unknown_key(key: str) -> str:
    for section, keys in (("settings", SETTINGS_RULES), ("resources", RESOURCES_RULES)):
        if key in keys:
            return f"{key}: not a key of the top level; write it under {section}:"
    return f"{key}: unknown key; {suggest(key, _KEYS)}"
