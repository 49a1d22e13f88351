"""Changes that `--set` makes to a config file, from texts such as `lr=1e-2` or `grid.layers_per_block=[2, 4]`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tune_cnn.rules import suggest
from tune_cnn.settings import ARGUMENT_PREFIX, KEYS, with_arguments_apart
from tune_cnn.sweep.config import strict_yaml
from tune_cnn.sweep.config.config_file import SECTIONS, check_values, located, read_source
from tune_cnn.sweep.config.file_model import file_model
from tune_cnn.sweep.config.run_names import pattern_problems


class Override(NamedTuple):
    """One change to a config file."""

    section: str
    key: str  # within the section, with dots between levels; empty: the whole section
    value: Any


def parse_overrides(texts: Sequence[str]) -> tuple[list[Override], list[str]]:
    """The valid changes of `--set`, and the faults of the others, one line each.

    Each text is `KEY=VALUE`: KEY is a settings key, a key of another section, such as `grid.lr`, or a whole section,
    such as `seeds`; VALUE is YAML.
    """
    overrides: dict[str, Override] = {}  # by what they change: lr and grid.lr contradict each other
    problems: list[str] = []
    sections = file_model().model_fields
    for text in texts:
        name, _, value_text = text.partition("=")
        # A pattern is always a text, even where YAML would read {K} as a mapping.
        value, faults = (value_text, []) if name == "run_name" else strict_yaml.parse(value_text)
        is_whole = name in sections or ("." in name and not name.startswith(ARGUMENT_PREFIX))
        if not (is_whole or name in KEYS or name.startswith(ARGUMENT_PREFIX)):
            known = [key for key in (*KEYS, *sections) if key != "model_fingerprint"]  # computed, never set by users
            problems.append(f"{name}: unknown key; {suggest(name, known)}")
            continue
        section, _, key = (name if is_whole else f"settings.{name}").partition(".")
        changed: Any = value
        for part in reversed(_parts(section, key)):
            changed = {part: changed}
        if section in SECTIONS and isinstance(changed, dict):
            changed = located(with_arguments_apart(changed), Path())
        if section not in sections:
            faults = [f"not a section of a config file; sections are {', '.join(sections)}"]
        if faults:
            problems += [f"{name}: {fault}" for fault in faults]
            continue
        if section == "data":
            changed, faults = read_source(changed, Path())
        faults += check_values({"run_name": "any", section: changed})[1]
        faults += pattern_problems(value_text, {}) if name == "run_name" and not faults else []
        subject = f"data.{key}" if section == "data" else "seed" if section == "seeds" else key or section
        if subject in overrides:
            faults.append(f"{name}: set twice; set it once")
        problems += faults
        if not faults:
            overrides[subject] = Override(section, key, changed.get(key, value) if key else changed)
    return list(overrides.values()), problems


def apply(override: Override, document: dict[str, Any]) -> list[str]:
    """Change the values of a file in place; return the fault, if there is one."""
    section, key, value = override
    if key == "model_args" and not isinstance(value, list):  # they replace those of the file, a key each
        if isinstance(of_file := document.get(section) or {}, dict):
            document[section] = {k: v for k, v in of_file.items() if not k.startswith(ARGUMENT_PREFIX)}
        arguments = (Override(section, f"{ARGUMENT_PREFIX}{name}", item) for name, item in (value or {}).items())
        return [fault for argument in arguments for fault in apply(argument, document)]
    grid, search, settings = (document.get(name) for name in ("grid", "search", "settings"))
    if section == "settings" and key == "seed" and "seeds" in document:
        return ["seed: seeds varies it; change seeds"]
    if section == "settings" and isinstance(grid, dict) and key in grid:
        return [f"{key}: the grid varies it; change grid.{key}, or choose cells by 'only'"]
    if section == "settings" and isinstance(search, dict) and key in search:
        return [f"{key}: the search varies it; change search.{key}"]
    # A key that varies now has no fixed value among the settings any more.
    varied = ["seed"] if section == "seeds" else ([key] if key else value) if section in ("grid", "search") else []
    if isinstance(settings, dict):
        document["settings"] = {key: value for key, value in settings.items() if key not in varied}
    target: Any = document
    *above, last = section, *_parts(section, key)
    for part in above:
        inner = target.get(part)
        if section == "scheduler" and isinstance(inner, str):  # only its name
            inner = {inner: {}}
        target[part] = {} if inner is None else inner
        target = target[part]
        if not isinstance(target, dict):  # one of the file's own faults
            return []
    target[last] = value
    return []


def _parts(section: str, key: str) -> list[str]:
    """Split a key into its levels, such as those of `scheduler.asha.grace_period`; `model_args.width` is one level."""
    if not key:
        return []
    return [key] if section in SECTIONS else key.split(".")
