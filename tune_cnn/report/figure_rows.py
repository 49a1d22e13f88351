"""Grouping of experiments into figures: those whose names differ in one setting share one."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tune_cnn.report.runs import Run
from tune_cnn.report.wording import listed
from tune_cnn.settings import telling_keys, varied_keys
from tune_cnn.texts import by_size, natural, setting_text, symbol

_LETTERS = {"K": "[Kk]", "L": "[Ll]", "seed": "(?:S|seed)"}


class Row(NamedTuple):
    """The experiments of one figure."""

    name: str  # the figure's file name without suffix: `exp1_1_K32`
    title: str  # such as `exp1_1: K = 32 fixed, L varies`
    axis: str | None  # the setting that varies, such as `L`; None if several vary, or none does
    curves: list[tuple[str, Run]]  # labels, such as `L = 8`, and runs, ordered by value; seeds share a label


class _Named(NamedTuple):
    """An experiment, and the settings that its name states."""

    name: str
    run: Run
    values: dict[str, str]  # of K, L, the seed and all other settings that vary among the experiments
    parts: dict[str, str]  # the parts of the name that state settings, in order: {"K": "_K32", "L": "_L2"}

    def without(self, *keys: str) -> str:
        """The name without the parts that state these settings."""
        name = self.name
        for part in [self.parts[key] for key in keys if key in self.parts]:
            name = "".join(name.rpartition(part)[::2])
        return name.strip("_-")


def figure_rows(experiments: Sequence[tuple[str, Run]]) -> list[Row]:
    """Group named experiments into figures.

    Among names with the same prefix (`exp1_1`), the last setting in the name that varies is the axis; experiments whose
    names are equal without it and the seed share a figure. The legend names whatever else varies among them.
    """
    tables = [{**run.told, "seed": setting_text(run.settings.seed)} for _, run in experiments]
    keys = dict.fromkeys(["K", "L", "seed", *telling_keys(tables)])
    families: dict[str, list[_Named]] = {}
    for (name, run), table in zip(experiments, tables, strict=True):
        values = {key: table.get(key, "none") for key in keys}
        found = _Named(name, run, values, _parts(name, values))
        families.setdefault(found.without(*keys), []).append(found)
    rows = [row for prefix, family in families.items() for row in _family(prefix, family)]
    names = Counter(row.name for row in rows)
    rows = [row if names[row.name] == 1 else row._replace(name=f"{row.name}_{n}") for n, row in enumerate(rows, 1)]
    return sorted(rows, key=lambda row: natural(row.name))


def _parts(name: str, values: Mapping[str, str]) -> dict[str, str]:
    """Find the part of a name that states each setting: letters, then the value; K, L and the seed have fixed letters.

    A part begins at the start, at an underscore, or where letters follow a digit.
    """
    parts: dict[str, str] = {}
    rest = name
    for key, value in values.items():
        begin = r"(?:_|^|(?<=\d)(?=[A-Za-z]))" + _LETTERS.get(key, "[A-Za-z]*")
        if found := re.findall(rf"{begin}[-=]?{re.escape(value)}(?![a-z\d.-])", rest):
            parts[key] = found[-1]
            rest = "_".join(rest.rpartition(found[-1])[::2])
    return dict(sorted(parts.items(), key=lambda part: name.rfind(part[1])))


def _family(prefix: str, family: Sequence[_Named]) -> list[Row]:
    varied = [key for key in varied_keys(found.values for found in family) if key != "seed"]
    stated = [key for key in family[0].parts if key != "seed"]
    axis = next(reversed([key for key in stated if key in varied] or stated), None)
    rows: dict[str, list[_Named]] = {}
    for found in family:
        rows.setdefault(found.without(axis or "", "seed"), []).append(found)
    if axis and len(rows) > 1 and all(len({found.values[axis] for found in row}) == 1 for row in rows.values()):
        axis, rows = None, {prefix: list(family)}  # figures of one curve each would compare nothing
    return [_row(name, prefix, axis, row) for name, row in rows.items()]


def _row(name: str, prefix: str, axis: str | None, row: Sequence[_Named]) -> Row:
    varied = [key for key in varied_keys(found.values for found in row) if key != "seed"]
    shown = list(dict.fromkeys([*([axis] if axis else []), *varied]))
    fixed = [f"{symbol(key)} = {row[0].values[key]}" for key in row[0].parts if key not in (*varied, "seed")]
    title = f"{', '.join(fixed)}{' fixed, ' if fixed and varied else ''}"
    if varied:
        title += f"{listed(map(symbol, varied))} {'varies' if len(varied) == 1 else 'vary'}"
    labels = [(", ".join(f"{symbol(key)} = {found.values[key]}" for key in shown), found) for found in row]
    labels.sort(key=lambda labelled: [by_size(labelled[1].values[key]) for key in shown])
    return Row(
        name or "figure",
        ": ".join(filter(None, [prefix, title])),
        axis,
        [(label or name or "run", found.run) for label, found in labels],
    )
