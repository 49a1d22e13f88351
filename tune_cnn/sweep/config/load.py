"""From config files to named experiments, and from these to distinct trials.

An experiment is one named run. Experiments with the same settings share one trial, which is trained once.
"""

import itertools
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from tune_cnn.errors import ConfigError, DataError, NetworkError
from tune_cnn.settings import ARGUMENT_PREFIX, DataSettings, varied_keys
from tune_cnn.sweep.config.config_file import Experiment, check_document, read_document, written_out
from tune_cnn.sweep.config.overrides import Override, apply, parse_overrides
from tune_cnn.sweep.config.run_names import unmatched
from tune_cnn.sweep.config.search_space import bounds
from tune_cnn.sweep.config.shipped import other_file
from tune_cnn.texts import enumerated, tell
from tune_cnn.waiting import waiting

_MOST_LOSSES = 3_500_000  # `parse_json` refuses files with more
_CHANGES = "changed settings"  # by `--set`, or from Python by `settings=`


def load_experiments(
    paths: Sequence[Path],
    *,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    finish: Sequence[str] = (),
    data: str | Mapping[str, Any] | None = None,
    may_be_open: bool = False,
    further: Mapping[str, Sequence[str]] = {},
) -> list[Experiment]:
    """Read config files into experiments.

    Args:
        overrides: Texts `key=value` of `--set`, which change every file.
        only: Patterns of `--only`, such as `*_L2`; experiments whose name matches none of them are left out.
        finish: Patterns of `--finish`; no scheduler stops experiments of these names.
        data: The source of `--data`, in place of the one of every file.
        may_be_open: Whether experiments may get their settings while the sweep runs.
        further: Faults found elsewhere, by place, to be reported together with those found here.

    Returns:
        The experiments in the order of the files, and in a file in that of its grid, the last key varying fastest.

    Raises:
        ConfigError: It holds every fault of every file and option.
    """
    faults: defaultdict[str, list[str]] = defaultdict(list, {place: list(found) for place, found in further.items()})
    changes, problems = parse_overrides(overrides, data)
    of_data = _CHANGES if data is None else "data"
    for problem in problems:
        faults[of_data if problem.startswith("data") else _CHANGES].append(problem)
    changes_data = any(change.section == "data" for change in changes)
    found: dict[str, list[Experiment]] = {}  # by file
    for path in paths:
        if own := other_file(path):
            tell(f"{path.stem}: using the shipped file; for your own, type {own}", file=sys.stderr)
        found[str(path)], problems = _read(path, changes)
        if any(experiment.is_open for experiment in found[str(path)]) and not may_be_open:
            remedy = "use --set algorithm=random, or tune-cnn trial on a sweep that has run"
            problems.append(f"algorithm: optuna suggests settings only as the sweep runs; {remedy}")
        for problem in problems:
            faults[of_data if changes_data and problem.startswith("data") else str(path)].append(problem)
    places: defaultdict[str, list[str]] = defaultdict(list)  # by name
    for place, experiments in found.items():
        for experiment in experiments:
            places[experiment.name].append(place)
    if not any(faults.values()):  # the names of a faulty file are unknown
        faults["only"] += unmatched([*places], only)
        faults["finish"] += unmatched([*places], finish)
        if len({json.dumps(e.scheduler) for experiments in found.values() for e in experiments}) > 1:
            faults[str(paths[-1])].append("scheduler: differs between the files; a sweep has one scheduler, or none")
    clashes = {of_name[1]: (name, of_name[0]) for name, of_name in reversed(places.items()) if len(of_name) > 1}
    for place, (name, other) in clashes.items():  # the first of each file
        faults[place].append(f"run_name: {name!r} names an experiment of {other} too; change the pattern, or keep one")
    chosen: list[Experiment] = []
    for place, experiments in found.items():
        if only:
            experiments = [e for e in experiments if any(fnmatchcase(e.name, pattern) for pattern in only)]
        if not experiments:
            continue  # before PyTorch is imported, which takes seconds
        experiments, problems = _resolve(experiments)
        faults[of_data if changes_data else place] += problems
        experiments, problems = _resolve_networks(experiments)
        faulty: defaultdict[str, list[str]] = defaultdict(list)  # names by the fault that they share
        for name, fault in unfit(experiments):
            faulty[fault].append(name)
        faults[place] += problems + [f"{enumerated(names, most=1)}: {fault}" for fault, names in faulty.items()]
        chosen += experiments
    distinct = {place: list(dict.fromkeys(problems)) for place, problems in faults.items() if problems}
    if distinct:
        first = next(iter(distinct))
        raise ConfigError(first, distinct[first], distinct)
    finished = {_trial(e) for e in chosen if any(fnmatchcase(e.name, pattern) for pattern in finish)}
    return [replace(e, scheduler=None, is_to_finish=True) if finished and _trial(e) in finished else e for e in chosen]


def _trial(experiment: Experiment) -> str:
    """Its trial id, or its name while Optuna has not suggested its settings yet."""
    return experiment.name if experiment.is_open else experiment.settings.trial_id


def distinct_trials(experiments: Sequence[Experiment]) -> dict[str, list[Experiment]]:
    """The experiments of each trial, by trial id; trials and experiments in the order in which they come."""
    trials: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        trials.setdefault(experiment.settings.trial_id, []).append(experiment)
    return trials


def _read(path: Path, overrides: Sequence[Override]) -> tuple[list[Experiment], list[str]]:
    """The experiments of a file as changed by options, none if it has a fault; and the faults."""
    document, problems = read_document(path)
    if document is None:
        return [], problems
    replaced = {override.section for override in overrides if override.depth == 0}
    kept = {key: value for key, value in document.items() if key not in replaced}
    document, found = written_out(kept, path.parent)
    for override in overrides:
        apply(override, document)
    experiments, more = check_document(document)
    problems += [*found, *more]
    return ([] if problems else experiments), problems


def _resolve(experiments: Sequence[Experiment]) -> tuple[list[Experiment], list[str]]:
    """Fill in what only the images can tell, such as the classes; return the faults too."""
    with waiting("loading PyTorch"):
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


def _resolve_networks(experiments: Sequence[Experiment]) -> tuple[list[Experiment], list[str]]:
    """Fill in what only the source files of custom networks can tell; return the faults too."""
    from tune_cnn import models

    if not any(itertools.chain(*map(_networks, experiments))):
        given = sorted({name for e in experiments for name in e.settings.model_args or {}})
        remedy = "only a custom network takes arguments; name its class as model, or leave it out"
        return list(experiments), [f"{ARGUMENT_PREFIX}{name}: {remedy}" for name in given]
    resolved, problems = [], []
    for experiment in experiments:
        try:
            found = [models.resolve(replace(experiment.settings, model=model)) for model in _networks(experiment)]
            resolved.append(replace(experiment, settings=found[0]))
        except NetworkError as error:
            problems.append(f"settings.model: {error}")
    if problems:
        return [], problems
    varied = varied_keys(experiment.settings.flat() for experiment in resolved)
    for model in {experiment.settings.model: experiment.settings for experiment in resolved}.values():
        for key in [key for key in varied if key in models.unused_keys(model)] if model.model else []:
            problems.append(f"{key}: varies, but {model.network} does not take it; vary one of its arguments")
    return resolved, problems


def _networks(experiment: Experiment) -> list[str | None]:
    """The custom network of an experiment, or all candidates if Optuna will suggest it."""
    search = experiment.search or {}
    return bounds(search["model"]) if experiment.is_open and "model" in search else [experiment.settings.model]


def unfit(experiments: Sequence[Experiment]) -> Iterator[tuple[str, str]]:
    """The names of experiments with an impossible network, or more losses than a result file holds; with each fault."""
    from tune_cnn import data, models

    count_images = cache(data.count_images)
    for name, settings in ((e.name, e.settings) for e in experiments):
        has_single = False
        with suppress(DataError):  # reported already
            train, validation, _ = count_images(settings.data)
            assert settings.bs_test is not None
            batches = min(settings.batches, math.ceil(train / settings.bs_train))
            has_single = min(train - (batches - 1) * settings.bs_train, settings.bs_train) == 1
            losses = settings.epochs * (batches + math.ceil(validation / settings.bs_test))
            if losses > _MOST_LOSSES and settings.early_stopping is None:  # else it is likely to end earlier
                produce = f"{settings.epochs} epochs produce {losses:,} batch losses, and a result file holds"
                yield name, f"{produce} {_MOST_LOSSES:,}; use fewer epochs, or a larger bs_train"
        if fault := models.network_fault(settings, has_single):
            yield name, fault
