"""One config file: read, checked as a whole, and every fault in it named."""

import difflib
import importlib.util
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from tune_cnn.errors import ResultError
from tune_cnn.files import read_file
from tune_cnn.rules import check, suggest
from tune_cnn.settings import ARGUMENT_PREFIX, Settings, parse_data, source_mapping, with_arguments_apart
from tune_cnn.settings.data import FOUND_OUT
from tune_cnn.sweep.config import strict_yaml
from tune_cnn.sweep.config.distributions import bounds, distribution_fault, draw, optuna_fault, stand_in
from tune_cnn.sweep.config.file_model import Resources, file_model
from tune_cnn.sweep.config.run_names import pattern_problems, with_seed
from tune_cnn.sweep.config.shipped import shipped_names

_MOST_BYTES = 200_000
SECTIONS = ("settings", "grid", "search")  # which hold settings
MAX_EXPERIMENTS = 10_000  # of one file: a mistyped grid is refused before it fills the memory


def read_document(path: Path) -> tuple[Any, list[str]]:
    """The plain values of a file, and its faults of syntax, one line each; None if it cannot be read."""
    if path.is_dir():
        return None, [f"a folder; name the files in it, such as {path / '*.yaml'}"]
    try:
        document, problems = strict_yaml.parse(read_file(path, _MOST_BYTES).decode("utf-8-sig"))
    except FileNotFoundError:
        near = difflib.get_close_matches(path.stem, shipped_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"shipped ones are {', '.join(shipped_names())}"
        return None, [f"no such file; name a config file, or a shipped one: {hint}"]
    except UnicodeDecodeError as error:
        return None, [f"byte {error.start + 1} is not UTF-8; save the file as UTF-8"]
    except ResultError as error:
        return None, [str(error).removeprefix(f"{path}: ")]
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        return None, [f"cannot be read ({error}); name a file that you may read"]
    if isinstance(document, dict):
        for name in SECTIONS:
            if isinstance(section := document.get(name), dict):
                document[name] = located(with_arguments_apart(section), path.parent)
        return document, problems
    if document is not None:
        problems.append("not a mapping; write keys such as run_name: and settings:")
    return None, problems or ["empty; write at least run_name, such as run_name: exp_K{K}_L{L}"]


def read_source(value: Any, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The mapping that a value of `data` stands for, its path from `folder` on made absolute; and the faults."""
    source, problems = source_mapping(value)
    problems += [f"data.{key}: found out from the images; leave it out" for key in FOUND_OUT if key in source]
    source = {key: value for key, value in source.items() if key not in FOUND_OUT}
    if isinstance(source.get("path"), str) and source["path"]:
        source["path"] = os.path.abspath(folder / os.path.expanduser(source["path"]))
    return source, problems


def located(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings, each a value, a list or a distribution, with the files of own networks made absolute."""

    def absolute(value: Any) -> Any:
        if isinstance(value, list):
            return [absolute(item) for item in value]
        if isinstance(value, dict):
            return {key: absolute(item) for key, item in value.items()}
        is_file = isinstance(value, str) and ".py:" in value
        return os.path.abspath(folder / os.path.expanduser(value)) if is_file else value

    return {**values, "model": absolute(values["model"])} if "model" in values else dict(values)


def check_values(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Check each value by itself.

    Args:
        document: The plain values; `data` is a mapping.

    Returns:
        The values as settings have them, if none has a fault; and the faults, one line each.
    """
    sections = [section for name in SECTIONS if isinstance(section := document.get(name), dict)]
    names = sorted({key for section in sections for key in section if key.startswith(ARGUMENT_PREFIX)})
    model = file_model(tuple(names))
    known = model.model_fields
    if isinstance(scheduler := document.get("scheduler", {}), str):
        document = {**document, "scheduler": {scheduler: {}}}
    elif scheduler is None:
        document = {key: value for key, value in document.items() if key != "scheduler"}
    values, problems = check(model, {key: value for key, value in document.items() if key in known})
    for key in [key for key in document if key not in known]:
        problems.append(f"{key}: unknown key; {suggest(key, known)}")
        for section, owner in (("settings", Settings), ("resources", Resources)):
            if key in owner.__dataclass_fields__:
                problems[-1] = f"{key}: not a key of the top level; write it under {section}:"
    found = document.get("search")
    for key, value in found.items() if isinstance(found, dict) else ():
        if key in Settings.__dataclass_fields__ or key.startswith(ARGUMENT_PREFIX):
            fault = distribution_fault(value)
            problems += [f"search.{key}: {fault}"] if fault else _bound_problems(key, value)
    return (values.model_dump(exclude_unset=True) if values and not problems else {}), problems


def _bound_problems(key: str, distribution: Mapping[str, Any]) -> list[str]:
    names = (key,) if key.startswith(ARGUMENT_PREFIX) else ()
    settings = file_model(names).model_fields["settings"].annotation
    for value in bounds(distribution):
        for problem in check(cast(Any, settings), {key: value})[1]:
            return [f"search.{problem}"]
    return []


def _samples_of(drawn: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The settings of each sample; and the fault of one that no setting can have, such as 2.5 layers."""
    samples = []
    for values_drawn in drawn:
        values, problems = check_values({"run_name": "any", "settings": values_drawn})
        if problems:
            return [], [f"search.{problems[0].partition('.')[2]}; choose another distribution, such as randint"]
        samples.append(values["settings"])
    return samples, []


def check_document(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Check the values of a file, each by itself and all together.

    Returns:
        If there is no fault: `run_name`, the pattern of the names; `grid`, the values of each varied key in the order
        of the file, those of the seeds last; `search`, the distributions; `samples`, the settings that are drawn of
        them, one empty one without a search; `study_seed`, that of Optuna's studies, None without; `scheduler`, its
        arguments by its name, or None; `settings` that do not vary; `data`, the `DataSettings`, not yet resolved;
        `resources`, the `Resources`. And the faults, one line each.
    """
    values, problems = check_values(document)
    faulty = {problem.partition(":")[0].partition("[")[0] for problem in problems}
    grid, search, settings = (
        section if isinstance(section := document.get(key), dict) else {} for key in ("grid", "search", "settings")
    )
    axes = {key: axis for key, axis in grid.items() if isinstance(axis, list) and f"grid.{key}" not in faulty}
    if document.get("grid") == {}:
        problems.append("grid: empty; write keys under it, such as layers_per_block: [2, 4], or leave it out")
    problems += [f"settings.{key}: the grid varies it too; keep one of the two" for key in settings if key in grid]
    for name, section in (("settings", settings), ("grid", grid)):
        problems += [f"{name}.{key}: the search varies it too; keep one of the two" for key in section if key in search]
    if "seeds" in document:
        sections = {"settings": settings, "grid": grid, "search": search}
        twice = [name for name, section in sections.items() if "seed" in section]
        problems += [f"{name}.seed: seeds varies it too; keep one of the two" for name in twice]
    if document.get("search") == {}:
        problems.append("search: empty; write keys under it, such as lr: {loguniform: [1.0e-4, 1.0e-2]}")
    elif "search" in document and "samples" not in document:
        problems.append("samples: missing; write how many are drawn, such as samples: 16")
    further = ("samples", "search_seed", "algorithm")
    for key in () if "search" in document else [key for key in further if key in document]:
        problems.append(f"{key}: there is no search: to draw from; add one, or leave this out")
    count = samples if type(samples := document.get("samples", 1)) is int and "samples" not in faulty else 1
    if "run_name" in document and "run_name" not in faulty:
        problems += pattern_problems(document["run_name"], axes, samples=count if "search" in document else 0)
    experiments = math.prod(map(len, axes.values())) * (1 if "seeds" in faulty else len(document.get("seeds", [1])))
    if (experiments := experiments * count) > MAX_EXPERIMENTS:
        problems.append(f"grid: {experiments:,} experiments; split it, a file may have {MAX_EXPERIMENTS:,} at most")
    data, found = parse_data(document.get("data", {}))
    problems += [problem for problem in found if problem not in problems]
    drawn: list[dict[str, Any]] = [{}]
    if values.get("algorithm") == "optuna" and not problems:
        problems += [f"search.{key}: {fault}" for key, value in search.items() if (fault := optuna_fault(value))]
        if importlib.util.find_spec("optuna") is None:
            problems.append("algorithm: optuna is not installed; pip install 'tune_cnn[optuna]'")
        drawn = _samples_of([stand_in(search)] * count)[0]
    elif search and not problems:
        drawn, problems = _samples_of(draw(search, values.get("search_seed", 0), number) for number in range(count))
    schedulers = values.get("scheduler")
    if schedulers is not None and len(schedulers) != 1:
        problems.append(f"scheduler: {' and '.join(schedulers) or 'empty'}; write one, such as scheduler: asha")
    if problems:
        return {}, problems
    seeds = {"seed": values["seeds"]} if "seeds" in values else {}
    return {
        "run_name": with_seed(values["run_name"]) if seeds else values["run_name"],
        "grid": {key: values["grid"][key] for key in grid} | seeds,
        "search": search,
        "samples": drawn,
        "study_seed": values.get("search_seed", 0) if values.get("algorithm") == "optuna" else None,
        "scheduler": schedulers,
        "settings": values.get("settings", {}),
        "data": data,
        "resources": Resources(**values.get("resources", {})),
    }, []
