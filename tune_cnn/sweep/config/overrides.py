"""Changes that `--set` makes to a config file, from texts such as `lr=1e-2` or `grid.layers_per_block=[2, 4]`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tune_cnn.rules import suggest
from tune_cnn.settings import ARGUMENT_PREFIX, KEYS
from tune_cnn.sweep.config import strict_yaml
from tune_cnn.sweep.config.config_file import SECTIONS, check_values, written_out
from tune_cnn.sweep.config.file_model import file_model


class Override(NamedTuple):
    """One change to a config file."""

    section: str
    value: Any  # of the section, or a mapping with those of its keys that change
    depth: int  # levels of keys below the section; 0: the value replaces the whole section


def parse_overrides(
    texts: Sequence[str], data: str | Mapping[str, Any] | None = None
) -> tuple[list[Override], list[str]]:
    """The valid changes of `--set` and, if there is one, of `--data`; and the faults of the others, one line each.

    Each text is `KEY=VALUE`: KEY is a settings key, a key of another section, such as `grid.lr`, or a whole section,
    such as `seeds`; VALUE is YAML. A later change replaces an earlier one of the same key.
    """
    problems: list[str] = []
    changes = [] if data is None else [Override("data", data, depth=0)]
    sections = file_model().model_fields
    for text in texts:
        name, _, value_text = text.partition("=")
        # A pattern is always a text, even where YAML would read {K} as a mapping.
        value, faults = (value_text, []) if name == "run_name" else strict_yaml.parse(value_text)
        section, _, key = (f"settings.{name}" if name.partition(".")[0] in KEYS else name).partition(".")
        if section not in sections:
            known = [key for key in (*KEYS, *sections) if key != "model_fingerprint"]  # computed, never set by users
            faults = [f"unknown key; {suggest(section, known)}"]
        problems += [f"{name}: {fault}" for fault in faults]
        parts = ([key] if section in SECTIONS else key.split(".")) if key else []
        for part in reversed(parts):
            value = {part: value}
        if not faults:
            changes.append(Override(section, value, len(parts)))
    overrides = []
    for change in changes:
        document, faults = written_out({"run_name": "any", change.section: change.value}, Path())
        faults += check_values(document)[1]
        problems += [fault for fault in faults if fault not in problems]
        if not faults:
            value = document[change.section]
            if change.section == "settings" and "model_args" in change.value:
                value["model_args"] = None  # so that `apply` drops the file's
            overrides.append(change._replace(value=value))
        elif change.section == "data" and change.depth == 0:  # the files' images, which it replaces, are not checked
            overrides.append(change._replace(value={}))
    return overrides, problems


def apply(override: Override, document: dict[str, Any]) -> None:
    """Change the values of a file in place."""
    section, value, depth = override
    if section in ("grid", "search", "seeds") and isinstance(settings := document.get("settings"), dict):
        # A key that varies now has no fixed value among the settings any more.
        varied = ["seed"] if section == "seeds" else value
        document["settings"] = {key: fixed for key, fixed in settings.items() if key not in varied}
    values = document.get(section)
    if section == "settings" and "model_args" in value and isinstance(values, dict):
        values = {key: old for key, old in values.items() if not key.startswith(ARGUMENT_PREFIX)}
    document[section] = _merged(values, value, depth)


def _merged(values: Any, changes: Any, depth: int) -> Any:
    if depth == 0 or values is None:
        return changes
    if not isinstance(values, dict):  # one of the file's own faults
        return values
    return values | {key: _merged(values.get(key), change, depth - 1) for key, change in changes.items()}
