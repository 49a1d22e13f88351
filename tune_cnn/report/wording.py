"""Wording of numbers, lists, places and variants in the sentences of a report."""

import re
from collections.abc import Iterable, Mapping, Sequence

from tune_cnn.report.grids import Cell, Grid
from tune_cnn.report.noise import Mean
from tune_cnn.settings import telling_keys
from tune_cnn.texts import by_size


def percent(value: Mean | float | None) -> str:
    """`68.2 %`, or with its interval `68.2 ± 0.5 %`."""
    return f"{number(value)} %"


def number(value: Mean | float | None, digits: int = 1) -> str:
    """`68.2`, or with its interval `68.2 ± 0.5`; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, Mean) and value.margin is not None:
        return f"{value.value:.{digits}f} ± {value.margin:.{digits}f}"
    return f"{value.value if isinstance(value, Mean) else value:.{digits}f}"


def listed(items: Iterable[object]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last


def levels(symbol: str, cells: Iterable[Cell]) -> str:
    """`L = 2, 4 and 8`."""
    return f"{symbol} = {listed(dict.fromkeys(cell.level(symbol) for cell in cells))}"


def places(cells: Sequence[Cell]) -> str:
    """The cells in words: `L = 8 and 16 at K = 32 and 64, and L = 32 at K = 64`."""
    if len(cells[0].axes) < 2:
        return ", ".join(levels(axis, cells) for axis in cells[0].axes) or cells[0].label
    along, across = cells[0].axes
    same: dict[str, list[Cell]] = {}
    for level in sorted({cell.level(across) for cell in cells}, key=by_size):
        row = [cell for cell in cells if cell.level(across) == level]
        same.setdefault(levels(along, row), []).append(row[0])
    return ", and ".join(f"{levels(across, found)} at {where}" for where, found in same.items())


def network(conditions: Mapping[str, str]) -> str:
    """The name of the network's class, or the key of another program that seems to choose it, with its value."""
    if "model" in conditions:
        return conditions["model"].rpartition(":")[2]
    for key, value in conditions.items():
        if is_network(key):
            return f"{key} = {value}"
    return "YourCodeNet" if conditions["ycn"] == "true" else "ConvClassifier"


def is_network(key: str) -> bool:
    """Whether a config key of another program seems to choose the network."""
    return re.search(r"(?i)(^|[._])(model|net|arch)", key) is not None


def variant(conditions: Mapping[str, str], keys: Iterable[str]) -> str:
    """The values of these conditions: `YourCodeNet, lr = 0.01`."""
    parts = [network(conditions) if key == "ycn" else f"{key} = {conditions.get(key, 'none')}" for key in keys]
    return ", ".join(dict.fromkeys(part if len(part) <= 80 else f"{part[:48]}…{part[-30:]}" for part in parts))


def differing(tables: Iterable[Mapping[str, str]]) -> list[str]:
    """The keys whose values differ between the tables, those of the network first."""
    return sorted(telling_keys(tables), key=lambda key: key != "ycn" and not is_network(key))


def grid_names(grids: Iterable[Grid]) -> list[str]:
    """Names that tell the grids apart; empty for a single one."""
    tables = [grid.conditions for grid in grids]
    keys = differing(tables)
    return [variant(table, keys) for table in tables]
