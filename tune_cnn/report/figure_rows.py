"""Which result files share a figure: those of a row of the grid, where one parameter of their names varies."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import pandas as pd

from tune_cnn.report.runs import flat_items
from tune_cnn.report.wording import listed
from tune_cnn.settings import ARGUMENT_PREFIX, Settings
from tune_cnn.texts import natural, setting_text

_SYMBOLS = {"filters_per_layer": "K", "layers_per_block": "L", "pool_every": "P", "hidden_dims": "H", "seed": "S"}
_COMMON = {"bs_train", "bs_test", "batches", "epochs", "early_stopping", "lr", "reg", "ycn", *_SYMBOLS.values()}
_NO_SETTINGS = {"run_name", "out_dir", "checkpoints", "S", "device", "data.path"}

# What tells a parameter in a name: K32, K-64-128, L2, H100-100, S7, seed42, lr0.001, reg1e-3.
_PART = re.compile(
    rf"_?(?<![A-Za-z])({'|'.join([*_SYMBOLS.values(), *Settings.__annotations__])})[-=]?"
    r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?(?:-\d+)*)(?![a-z\d])"
)
# As others write K and L: k32, l2, K64_128, K[64, 128].
_OTHER_K = re.compile(r"(?<![A-Za-z])[Kk]\[?(\d+(?:(?:-|_|, ?)\d+)*)(?:\]|(?![a-z\d]))")
_OTHER_L = re.compile(r"(?<![A-Za-z])l(?=\d)")
_MOST_UNRELATED = 10  # experiments of which each differs from each in several parameters


class Row(NamedTuple):
    """The experiments of one figure."""

    name: str  # of the figure's file, without suffix
    title: str  # such as `exp1_1: K = 32 fixed, L varies`
    axis: str | None  # the parameter of the names that varies, such as `L`; None if several do, or none can
    # What the legend calls each experiment, such as `L = 8`; seeds of a cell have the same. By the experiment's place
    # among all, and in the order of their values.
    labels: dict[int, str]
    values: dict[int, str]  # that of `axis` for each of them


def figure_rows(experiments: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]]) -> list[Row]:
    """Put experiments into figures, in natural order of the figures' names.

    A row has one prefix (`exp1_1`), and of the parameters in its names only the last that varies among all of them
    varies there. Settings that the names do not tell split a row if one of its cells has several of them; else the
    legend tells them. The values are those of the config; of a file without, those of its name.

    Args:
        experiments: Name, config and facts of each, as `load_result_file` gives them.
    """
    if not experiments:
        return []
    table = pd.DataFrame([_columns(*experiment) for experiment in experiments], dtype=object)
    rows = list(chain.from_iterable(_family(family) for _, family in table.groupby("prefix", sort=False)))
    names = Counter(row.name for row in rows)
    rows = [row if names[row.name] == 1 else row._replace(name=f"{row.name}_{n}") for n, row in enumerate(rows, 1)]
    return sorted(rows, key=lambda row: natural(row.name))


def _columns(name: str, config: Mapping[str, Any], trial: Mapping[str, Any]) -> dict[str, Any]:
    """One experiment as texts: its `prefix`, the parameters that its name tells, and all settings."""
    name = _OTHER_L.sub("L", _OTHER_K.sub(lambda match: "K" + re.sub(r"\D+", "-", match[1]), name))
    told = {_SYMBOLS.get(key, key): value for key, value in _PART.findall(name)}
    told.pop("S", None)
    kw = config["kw"] if isinstance(config.get("kw"), dict) else {}
    config = {key: value for key, value in config.items() if key != "kw"}
    data = {"data": trial["data"]} if isinstance(trial.get("data"), dict) else {}
    settings = {_SYMBOLS.get(key, key): setting_text(value) for key, value in flat_items({**config, **kw, **data})}
    # From `wide_{model_args.width}` or `wide_{lr}`, a name has the value alone. Other whole numbers may be anything.
    prefix = _PART.sub("", name)
    for key, value in settings.items():
        is_telling = key.startswith(ARGUMENT_PREFIX) or (value[:1].isdigit() and not value.isdigit())
        if is_telling and (found := re.fullmatch(rf"(.*(?<![^_])[A-Za-z]*){re.escape(value)}((?:_.*)?)", prefix)):
            prefix, told[key] = found[1] + found[2], value
    return {
        **told,
        **{key: value for key, value in settings.items() if config and key not in _NO_SETTINGS},
        "prefix": prefix.strip("_-"),
        "told": tuple(told),
        "has config": bool(config),
    }


def _family(table: pd.DataFrame) -> Iterator[Row]:
    """The rows of the experiments of one prefix."""
    table = table.dropna(axis="columns", how="all").copy()
    settings = [key for key in table if key not in ("prefix", "told", "has config")]
    for key in settings:  # what only some editions of the assignment write has its default where it is missing
        if key not in _COMMON and not key.startswith("data."):
            default = getattr(Settings(), key) if key in Settings.__annotations__ else None
            table.loc[table[key].isna() & table["has config"], key] = setting_text(default)
    parameters = list(dict.fromkeys(chain.from_iterable(table["told"])))
    varied = _varied(table, parameters) or parameters
    last = Counter(key for told in table["told"] for key in [key for key in told if key in varied][-1:])
    axis = last.most_common(1)[0][0] if last else None
    groups = _split(table, [key for key in parameters if key != axis])
    if 1 < len(groups) <= _MOST_UNRELATED and not any(_varied(group, [str(axis)]) for group in groups):
        groups, axis = [table], None
    for group in groups:
        further = _varied(group, [key for key in settings if key not in parameters])
        cells = _split(group, [axis] if axis else [])
        mixed = len(cells) > 1 and any(_varied(cell, further) for cell in cells)
        for part in _split(group, further) if mixed else [group]:
            yield _row(part, axis, [*parameters, *further])


def _varied(table: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Which of the keys have several known values."""
    return [key for key in keys if table[key].nunique() > 1]


def _split(table: pd.DataFrame, keys: Sequence[str]) -> list[pd.DataFrame]:
    return [part for _, part in table.groupby(list(keys), dropna=False, sort=False)] if keys else [table]


def _row(table: pd.DataFrame, axis: str | None, keys: Sequence[str]) -> Row:
    """The row of these experiments, whose name, title and labels tell these keys."""
    prefix: str = table["prefix"].iloc[0]
    varied = _varied(table, keys)
    fixed = {key: table[key].dropna().iloc[0] for key in keys if key not in varied and table[key].notna().any()}
    shown = [key for key in keys if key in varied or key == axis]
    table = table.loc[sorted(table.index, key=lambda index: [_size(value) for value in table.loc[index, shown]])]
    name = "_".join([prefix] * bool(prefix) + [f"{key}{value}" for key, value in fixed.items() if key != axis])
    title = ", ".join(f"{key} = {value}" for key, value in fixed.items())
    varies = f"{listed(varied)} {'varies' if len(varied) == 1 else 'vary'}" if varied else ""
    title = f"{prefix}: {title}" if prefix and title else prefix or title
    if varied:
        title += f"{' fixed,' if fixed else ':' if varied[1:] else ','} {varies}" if title else varies
    return Row(
        "".join(c if c.isprintable() and c != "/" else "-" for c in name[:200]) or "figure",
        title,
        axis,
        {index: _told(values) or prefix or "run" for index, values in table[shown].iterrows()},
        dict(table[axis].dropna()) if axis else {},
    )


def _told(values: "pd.Series[str]") -> str:
    return ", ".join(f"{key} = {value}" for key, value in values.dropna().items())


def _size(value: object) -> tuple[float, list[str | int]]:
    """A sorting key: numbers by size, lists of them by their sum, then other texts."""
    if not isinstance(value, str):  # unknown
        return 0, []
    try:
        return float(value), []
    except ValueError:
        return total(value) or math.inf, natural(value)


def total(value: str) -> int | None:
    """The sum of whole numbers such as `64-128`; None of anything else."""
    return sum(map(int, value.split("-"))) if re.fullmatch(r"\d+(-\d+)*", value) else None
