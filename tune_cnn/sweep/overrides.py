"""What `--set` changes in a config file: texts such as `lr=1e-2` or `grid.layers_per_block=[2, 4]`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tune_cnn.rules import check
from tune_cnn.settings import SETTINGS_RULES
from tune_cnn.sweep import strict_yaml
from tune_cnn.sweep.config_file import RESOURCES_RULES, axis_problems, seeds_problems
from tune_cnn.sweep.run_names import pattern_problems


class Override(NamedTuple):
    """One change: the section of the file, empty for its top level; the key in it; the new value."""

    section: str
    key: str
    value: Any


def parse_overrides(texts: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Read the texts of `--set`.

    Args:
        texts: Each `KEY=VALUE`, where KEY is a settings key, `settings.KEY`, `grid.KEY`, `resources.KEY`, `seeds` or
            `run_name`, and VALUE is YAML.

    Returns:
        The changes without faults, and the faults of the others, one line each.
    """
    overrides: dict[str, Override] = {}  # by what they change: lr and grid.lr say two things about one key
    problems: list[str] = []
    for text in texts:
        name, equals, value_text = text.partition("=")
        if not equals:
            problems.append(f"{text}: no value; write key=value, such as lr=1.0e-3")
            continue
        # A pattern is a text always, also where YAML would see a mapping in {K}.
        value, found = (value_text, []) if name == "run_name" else strict_yaml.parse(value_text)
        section, dot, key = name.rpartition(".")
        if not dot and key not in ("run_name", "seeds"):
            section = "settings"
        found = [f"{name}: {problem}" for problem in found] or _faults(section, key, value)
        subject = "seed" if key == "seeds" else key
        if subject in overrides:
            found.append(f"{name}: set twice; set it once")
        problems += found
        if not found:
            overrides[subject] = Override(section, key, value)
    return list(overrides.values()), problems


def apply(override: Override, document: dict[str, Any]) -> list[str]:
    """Change the values of a file in place; return the fault, if there is one."""
    section, key, value = override
    grid, settings = document.get("grid"), document.get("settings")
    if not section:
        document[key] = value
        if key == "seeds" and isinstance(settings, dict):
            settings.pop("seed", None)  # seeds varies now what the settings held
        return []
    if section == "settings" and key == "seed" and "seeds" in document:
        return ["--set seed: seeds varies it; write --set seeds=[...]"]
    if section == "settings" and isinstance(grid, dict) and key in grid:
        return [f"--set {key}: the grid varies it; use --only to choose cells, or --set grid.{key}=[...]"]
    if section == "grid" and isinstance(settings, dict):
        settings.pop(key, None)  # the grid varies now what the settings held
    target = document.setdefault(section, {})
    if isinstance(target, dict):  # anything else is one of the file's own faults
        target[key] = value
    return []


def _faults(section: str, key: str, value: Any) -> list[str]:
    if section == "settings":
        if key == "data":
            return ["data: not changed by --set; write --data SOURCE, such as --data shapes"]
        return check({key: value}, SETTINGS_RULES, "settings.")
    if section == "grid":
        return axis_problems(key, value)
    if section == "resources":
        return check({key: value}, RESOURCES_RULES, "resources.")
    if not section:
        return seeds_problems(value) if key == "seeds" else pattern_problems(value, {})
    return [f"{section}.{key}: not a section of a config file; sections are settings, grid and resources"]
