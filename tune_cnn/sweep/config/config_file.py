"""Reads one config file, checks it as a whole, and reports every fault in it."""

import difflib
import importlib.util
import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cnn.errors import ResultError
from tune_cnn.files import read_file
from tune_cnn.rules import check, name_problems, suggest
from tune_cnn.settings import ARGUMENT_PREFIX, Settings, with_arguments_apart, with_arguments_together
from tune_cnn.settings.data import FOUND_OUT, DataSettings, parse_data, source_mapping
from tune_cnn.sweep.config import strict_yaml
from tune_cnn.sweep.config.file_model import Resources, file_model
from tune_cnn.sweep.config.run_names import pattern_problems, run_name
from tune_cnn.sweep.config.search_space import bounds, distribution_fault, draw
from tune_cnn.sweep.config.shipped import shipped_names
from tune_cnn.texts import digest

_MOST_BYTES = 200_000
SECTIONS = ("settings", "grid", "search")  # sections whose keys are settings
_LEAST_DRAWN = 30  # samples drawn to check that Optuna can only suggest valid settings
MAX_EXPERIMENTS = 10_000  # per file: a mistyped grid is refused before it fills the memory


@dataclass(frozen=True)
class Experiment:
    """One named run."""

    name: str  # its result file has the same name
    settings: Settings  # of its trial, with resolved data
    resources: Resources  # of its trial
    search: Mapping[str, Mapping[str, Any]] | None = None  # the distribution of each settings key that was drawn
    scheduler: Mapping[str, Mapping[str, Any]] | None = None  # Tune's that may stop it, with its arguments
    study: tuple[str, int] | None = None  # name and seed of the Optuna study that suggests its settings
    is_open: bool = False  # its settings are valid placeholders, until Optuna suggests the real ones
    is_to_finish: bool = False  # `--finish` names it, so no scheduler may stop it


def read_document(path: Path) -> tuple[Any, list[str]]:
    """The plain values of a file, None if it cannot be read; and its syntax errors, one line each."""
    try:
        document, problems = strict_yaml.parse(read_file(path, _MOST_BYTES).decode("utf-8-sig"))
    except FileNotFoundError:
        names = {name: name for name in shipped_names()} | {own.stem: str(own) for own in path.parent.glob("*.yaml")}
        near = difflib.get_close_matches(path.stem, names, n=1)
        others = f"name one, or a shipped one: {', '.join(shipped_names())}"
        return None, [f"no such file; {f'did you mean {names[near[0]]}?' if near else others}"]
    except ResultError as error:
        return None, [str(error).removeprefix(f"{path}: ")]
    except (OSError, ValueError) as error:  # ValueErrors: a NUL in the name, or a text that is not UTF-8
        return None, [f"cannot be read ({error}); name a text in UTF-8 that you may read"]
    if document is not None and not isinstance(document, dict):
        return None, [*problems, "not a mapping; write keys such as run_name: and settings:"]
    if document is None and not problems:
        problems = ["empty; write at least run_name, such as run_name: exp_K{K}_L{L}"]
    return document, problems


def written_out(document: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """A file without abbreviations, its paths (relative to `folder`) made absolute; and the faults of its images."""

    def absolute(value: Any) -> Any:
        if isinstance(value, list):
            return [absolute(item) for item in value]
        if isinstance(value, dict):
            return {key: absolute(item) for key, item in value.items()}
        is_file = isinstance(value, str) and ".py:" in value
        return os.path.abspath(folder / os.path.expanduser(value)) if is_file else value

    document = dict(document)
    problems: list[str] = []
    for name in SECTIONS:
        if isinstance(section := document.get(name), dict):
            section = with_arguments_apart(section)
            document[name] = section | ({"model": absolute(section["model"])} if "model" in section else {})
    if "data" in document:
        source, problems = source_mapping(document["data"])
        problems += [f"data.{key}: determined from the images; leave it out" for key in FOUND_OUT if key in source]
        source = {key: value for key, value in source.items() if key not in FOUND_OUT}
        if isinstance(source.get("path"), str) and source["path"]:
            source["path"] = os.path.abspath(folder / os.path.expanduser(source["path"]))
        document["data"] = source
    if isinstance(scheduler := document.get("scheduler"), str):
        scheduler = {scheduler: None}
    if isinstance(scheduler, dict):  # without arguments, a scheduler has the defaults
        document["scheduler"] = {kind: {} if given is None else given for kind, given in scheduler.items()}
    return document, problems


def check_values(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The converted values, none if any has a fault; and the faults, one line each. Each value is checked by itself."""
    sections = [section for name in SECTIONS if isinstance(section := document.get(name), dict)]
    names = sorted({key for section in sections for key in section if key.startswith(ARGUMENT_PREFIX)})
    model = file_model(tuple(names))
    known = model.model_fields
    given = {key: value for key, value in document.items() if key in known and (key, value) != ("scheduler", None)}
    values, problems = check(model, given)
    section = document.get("settings") if problems else None
    for key, value in section.items() if isinstance(section, dict) else ():
        if isinstance(value, list) and not check(model, {"run_name": "any", "grid": {key: value}})[1]:
            place, hint = f"settings.{key}: ", f"; to train with each of these, give the list to grid.{key}"
            problems = [problem + hint if problem.startswith(place) else problem for problem in problems]
    for key in [key for key in document if key not in known]:
        problems.append(f"{key}: unknown key; {suggest(key, known)}")
        for section, owner in (("settings", Settings), ("resources", Resources)):
            if key in owner.__dataclass_fields__:
                problems[-1] = f"{key}: not a key of the top level; write it under {section}:"
    search = document.get("search")
    settings: Any = known["settings"].annotation
    for key, distribution in search.items() if isinstance(search, dict) else ():
        if key in Settings.__dataclass_fields__ or key.startswith(ARGUMENT_PREFIX):
            if fault := distribution_fault(distribution):
                problems.append(f"search.{key}: {fault}")
            else:
                of_bounds = [fault for value in bounds(distribution) for fault in check(settings, {key: value})[1]]
                problems += [f"search.{fault}" for fault in of_bounds[:1]]
    return (values.model_dump(exclude_unset=True) if values and not problems else {}), problems


def _samples_of(drawn: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The settings of each sample; and the fault of the first with an invalid value, such as 2.5 layers."""
    samples = []
    for values_drawn in drawn:
        values, problems = check_values({"run_name": "any", "settings": values_drawn})
        if problems:
            return [], [
                f"search.{problems[0].partition('.')[2]}; choose another distribution, such as randint or choice"
            ]
        samples.append(values["settings"])
    return samples, []


def check_document(document: Mapping[str, Any]) -> tuple[list[Experiment], list[str]]:
    """The experiments of a file, their data not resolved yet, none if it has a fault; and the faults, one line each."""
    values, problems = check_values(document)
    faulty = {problem.partition(":")[0].partition("[")[0] for problem in problems}
    grid, search, settings = (
        section if isinstance(section := document.get(key), dict) else {} for key in ("grid", "search", "settings")
    )
    axes = {key: axis for key, axis in grid.items() if isinstance(axis, list) and f"grid.{key}" not in faulty}
    seeds = {"seed"} if "seeds" in document else set()
    sections = [("settings", settings), ("grid", grid), ("search", search), ("seeds", seeds)]
    for (name, section), (other, varied) in itertools.combinations(sections, 2):
        for key in [key for key in section if key in varied]:
            twin = other if other == "seeds" else f"{other}.{key}"
            problems.append(f"{name}.{key}: {twin} varies it too; set that instead, or keep one")
    if "search" in document and "samples" not in document:
        problems.append("samples: missing; write how many are drawn, such as samples: 16")
    further = ("samples", "search_seed", "algorithm")
    for key in () if document.get("search", {}) != {} else [key for key in further if key in document]:
        problems.append(f"{key}: there is no search: to draw from; add one, or leave this out")
    count = values.get("samples", 1)
    if "run_name" in document and "run_name" not in faulty:
        problems += pattern_problems(document["run_name"], {**axes, "sample": range(count)})
    experiments = math.prod(map(len, axes.values())) * (1 if "seeds" in faulty else len(document.get("seeds", [1])))
    if (experiments := experiments * count) > MAX_EXPERIMENTS:
        place = ", ".join(key for key in ("grid", "seeds", "samples") if key in document)
        problems.append(f"{place}: {experiments:,} experiments; split it, a file may have {MAX_EXPERIMENTS:,} at most")
    data, faults = parse_data(document.get("data", {}))
    problems += [fault for fault in faults if fault not in problems]
    drawn: list[dict[str, Any]] = [{}]
    is_open = values.get("algorithm") == "optuna"
    if is_open and not problems:
        for key, (name, *_) in search.items():
            if name in ("qloguniform", "qlograndint"):
                problems.append(f"search.{key}: {name}: Optuna cannot round on a logarithmic scale; use {name[1:]}")
        if importlib.util.find_spec("optuna") is None:
            problems.append("algorithm: optuna is not installed; pip install 'tune_cnn[optuna]'")
    if search and not problems:
        tried = max(count, _LEAST_DRAWN if is_open else 0)
        drawn, problems = _samples_of(draw(search, values.get("search_seed", 0), number) for number in range(tried))
        if is_open and not problems:  # placeholders, until Optuna suggests settings
            drawn = _samples_of([{key: bounds(of_key)[0] for key, of_key in search.items()}])[0] * count
    schedulers = values.get("scheduler")
    if schedulers is not None and len(schedulers) != 1:
        problems.append(f"scheduler: {' and '.join(schedulers) or 'empty'}; write one, such as scheduler: asha")
    if problems:
        return [], problems
    axes = {key: values["grid"][key] for key in grid} | ({"seed": values["seeds"]} if "seeds" in values else {})
    return _experiments(values, axes, search, drawn, data)


def _experiments(
    values: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    search: Mapping[str, Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    data: DataSettings,
) -> tuple[list[Experiment], list[str]]:
    """The cells of a grid, the last key varying fastest, each with all samples; or the first fault."""
    pattern = values["run_name"]
    if "seeds" in values and "{S}" not in pattern and "{seed}" not in pattern:
        pattern += "_S{S}"
    scheduler, resources = values.get("scheduler"), Resources(**values.get("resources", {}))
    is_open = values.get("algorithm") == "optuna"
    experiments = []
    for *cell, (number, sample) in itertools.product(*grid.values(), enumerate(samples)):
        varied = {**dict(zip(grid, cell, strict=True)), **sample}
        settings = Settings(**with_arguments_together(values.get("settings", {}) | varied), data=data)
        name = run_name(pattern, settings, number)
        if problems := name_problems(name):
            return [], [f"run_name: {problem}" for problem in problems]
        for kind, arguments in (scheduler or {}).items():
            if arguments["grace_period"] >= settings.epochs:
                fault = f"{arguments['grace_period']} is no less than the {settings.epochs} epochs of {name}"
                remedy = "so nothing would stop; give less, or scheduler: null"
                return [], [f"scheduler.{kind}.grace_period: {fault}, {remedy}"]
        study = None
        if is_open:  # each cell and each search has a study of its own
            text = json.dumps([settings.identity(), search, pattern], sort_keys=True)
            study = (digest(text)[:8], values.get("search_seed", 0))
        experiments.append(Experiment(name, settings, resources, search or None, scheduler, study, is_open))
    return experiments, []
