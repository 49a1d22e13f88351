"""Which experiments share a figure: those whose names differ in one setting."""

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

    name: str  # of the figure's file, without suffix: `exp1_1_K32`
    title: str  # such as `exp1_1: K = 32 fixed, L varies`
    axis: str | None  # the setting that varies, such as `L`; None if several do, or none
    curves: list[tuple[str, Run]]  # with their labels, such as `L = 8`, in the order of their values; seeds share one


class _Named(NamedTuple):
    """An experiment, and what its name tells."""

    name: str
    run: Run
    values: dict[str, str]  # of the settings that vary among all experiments, and of the seed
    parts: dict[str, str]  # the part of the name that tells a setting, in their order: {"K": "_K32", "L": "_L2"}

    def without(self, *keys: str) -> str:
        """The name without the parts that tell these settings."""
        name = self.name
        for part in [self.parts[key] for key in keys if key in self.parts]:
            name = "".join(name.rpartition(part)[::2])
        return name.strip("_-")


def figure_rows(experiments: Sequence[tuple[str, Run]]) -> list[Row]:
    """Put named experiments into figures.

    Experiments whose names begin alike (`exp1_1`) vary the last setting that their names tell; those whose names are
    the same without it, and without the seed, share a figure. What else varies among them stands in the legend.
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
    """The part of a name that tells a setting: its value behind any letters; those of K, L and the seed are known.

    A part begins with an underscore, or where letters follow a digit.
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
    told = [key for key in family[0].parts if key != "seed"]
    axis = next(reversed([key for key in told if key in varied] or told), None)
    rows: dict[str, list[_Named]] = {}
    for found in family:
        rows.setdefault(found.without(axis or "", "seed"), []).append(found)
    if axis and len(rows) > 1 and all(len({found.values[axis] for found in row}) == 1 for row in rows.values()):
        axis, rows = None, {prefix: list(family)}  # a figure of one curve each would compare nothing
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
