"""The search space: config files -> named experiments -> distinct trials.

An experiment is one named run. Experiments with the same settings are one trial, which is trained once.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from tune_cnn.errors import ConfigError, DataError
from tune_cnn.rules import name_problems
from tune_cnn.settings import SETTINGS_RULES, DataSettings, Settings, parse_settings
from tune_cnn.sweep.config_file import ConfigFile, Resources, check_document, parse_source, read_document
from tune_cnn.sweep.overrides import Override, apply, parse_overrides
from tune_cnn.sweep.run_names import run_name

__all__ = ["Experiment", "Resources", "distinct_trials", "load_experiments"]

_MAX_LAYERS = 1000  # a mistyped depth is refused before a network of a million layers is built
_MAX_LISTED = 40  # names in a message


@dataclass(frozen=True)
class Experiment:
    """One named run.

    Attributes:
        name: Also the name of its result file.
        settings: Of its trial, with resolved data.
        resources: What its trial gets.
    """

    name: str
    settings: Settings
    resources: Resources


def load_experiments(
    paths: Sequence[Path], *, overrides: Sequence[str] = (), only: Sequence[str] = (), data: str | None = None
) -> list[Experiment]:
    """Read config files into experiments.

    Args:
        paths: The config files.
        overrides: Texts `key=value` of `--set`, which change every file.
        only: Patterns of `--only`, such as `*_L2`; experiments whose name matches none of them are left out.
        data: The source of `--data`, in place of the one of every file.

    Returns:
        The experiments in the order of the files, and in a file in the order of its grid, the last key fastest.

    Raises:
        ConfigError: With every fault of every file and option.
    """
    changes, problems = parse_overrides(overrides)
    errors = [ConfigError("--set", problems)] if problems else []
    replacement = None
    if data is not None:
        replacement, problems = parse_source(data, Path())
        errors += [ConfigError("--data", problems)] if problems else []

    found: dict[str, list[Experiment]] = {}  # by file
    for path in paths:
        try:
            if os.path.abspath(path) in map(os.path.abspath, found):
                raise ConfigError(str(path), ["given twice; give it once"])
            found[str(path)] = _experiments(_read(path, changes, replacement))
        except ConfigError as error:
            errors.append(error)
    if not errors:  # the names of a faulty file are not known
        problems = _unmatched([experiment.name for experiments in found.values() for experiment in experiments], only)
        errors += [ConfigError("--only", problems)] if problems else []

    clashes = _name_clashes(found)
    chosen: list[Experiment] = []
    for place, experiments in found.items():
        if only:
            experiments = [e for e in experiments if any(fnmatchcase(e.name, pattern) for pattern in only)]
        experiments, problems = _resolve(experiments)
        chosen += experiments
        problems = clashes.get(place, []) + problems + _network_problems(experiments)
        errors += [ConfigError(place, problems)] if problems else []
    if errors:
        raise ConfigError.joined(errors)
    return chosen


def distinct_trials(experiments: Sequence[Experiment]) -> dict[str, list[Experiment]]:
    """The experiments of each trial id, both in the order in which they come."""
    trials: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        trials.setdefault(experiment.settings.trial_id, []).append(experiment)
    return trials


def _read(path: Path, overrides: Sequence[Override], data: DataSettings | None) -> ConfigFile:
    document, problems = read_document(path)
    for override in overrides:
        problems += apply(override, document)
    file, found = check_document(document, path, data)
    if file is None or problems:
        raise ConfigError(str(path), problems + found)
    return file


def _experiments(file: ConfigFile) -> list[Experiment]:
    """The cells of a file's grid.

    Raises:
        ConfigError: A name cannot be one, or stands for two cells.
    """
    experiments: dict[str, Experiment] = {}
    for cell in itertools.product(*file.grid.values()):
        values = {**file.settings, **dict(zip(file.grid, cell, strict=True)), "data": file.data}
        settings = parse_settings(values, file.place)
        name = run_name(file.run_name, settings)
        problems = name_problems(name)
        if name in experiments:
            problems.append(f"{name!r} names two experiments" + _remedy(experiments[name].settings, settings))
        if problems:
            raise ConfigError(file.place, [f"run_name: {problem}" for problem in problems])
        experiments[name] = Experiment(name, settings, file.resources)
    return list(experiments.values())


def _unmatched(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    listed = ", ".join(names[:_MAX_LISTED])
    if len(names) > _MAX_LISTED:
        listed += f" and {len(names) - _MAX_LISTED} more"
    return [
        f"{pattern!r} matches no name; there are {listed}"
        for pattern in patterns
        if not any(fnmatchcase(name, pattern) for name in names)
    ]


def _name_clashes(found: Mapping[str, Sequence[Experiment]]) -> dict[str, list[str]]:
    """The files whose names an earlier file has given already, each with its first such name."""
    clashes: dict[str, list[str]] = {}
    owners: dict[str, tuple[str, Settings]] = {}
    for place, experiments in found.items():
        for experiment in experiments:
            owner, settings = owners.setdefault(experiment.name, (place, experiment.settings))
            if owner != place and place not in clashes:
                remedy = _remedy(settings, experiment.settings)
                clashes[place] = [f"run_name: {experiment.name!r} names an experiment of {owner} too" + remedy]
    return clashes


def _remedy(one: Settings, other: Settings) -> str:
    """What to do about two experiments of one name."""
    for key in SETTINGS_RULES:
        values = [getattr(settings, key) for settings in (one, other)]
        if values[0] != values[1]:
            shown = [list(value) if isinstance(value, tuple) else value for value in values]
            return f", {key} {shown[0]} and {shown[1]}; change the pattern to tell them apart, as with {{{key}}}"
    if one.data != other.data:
        return ", on other images; change the pattern of one of them"
    return " with the same settings; keep one of them"


def _resolve(experiments: Sequence[Experiment]) -> tuple[list[Experiment], list[str]]:
    """Fill in what only the images tell; return the faults too."""
    from tune_cnn import data

    resolved: dict[DataSettings, DataSettings] = {}
    problems = []
    for source in dict.fromkeys(experiment.settings.data for experiment in experiments):
        try:
            resolved[source] = data.resolve(source)
        except DataError as error:
            resolved[source] = source
            lines = str(error).splitlines()
            problems += [line if line.startswith("data") else f"data: {line}" for line in lines]
    return [replace(e, settings=replace(e.settings, data=resolved[e.settings.data])) for e in experiments], problems


def _network_problems(experiments: Sequence[Experiment]) -> list[str]:
    """Build every network once, on the meta device, where weights take no memory."""
    faults: dict[tuple[object, ...], str | None] = {}  # by what decides the network: many trials share one
    problems = []
    for name, settings in ((experiment.name, experiment.settings) for experiment in experiments):
        shape = (settings.filters_per_layer, settings.layers_per_block, settings.pool_every, settings.hidden_dims)
        network = (*shape, settings.ycn, settings.data)
        if network not in faults:
            faults[network] = _network_fault(settings)
        if faults[network]:
            problems.append(f"{name}: {faults[network]}")
    return problems


def _network_fault(settings: Settings) -> str | None:
    import torch

    from tune_cnn import models

    layers = len(settings.filters_per_layer) * settings.layers_per_block
    if layers > _MAX_LAYERS:
        return f"{layers:,} conv layers; give at most {_MAX_LAYERS:,}"
    try:
        with torch.device("meta"):
            models.build(settings)
    except ValueError as error:
        return str(error)
    except (RuntimeError, TypeError):  # torch, about sizes beyond 64 bits
        return "a layer is too large to exist; give fewer filters_per_layer, smaller hidden_dims or smaller images"
    return None
