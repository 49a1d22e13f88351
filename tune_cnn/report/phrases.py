"""Numbers and lists as the report words them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from tune_cnn.report.cells import Cell, Grid
from tune_cnn.report.noise import Mean
from tune_cnn.settings import Settings


def percent(value: Mean | float | None) -> str:
    """`68.2 %`, or with its interval `68.2 ± 0.5 %`."""
    return f"{number(value)} %"


def number(value: Mean | float | None, digits: int = 1) -> str:
    """`68.2`, or with its interval `68.2 ± 0.5`; a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, Mean) and value.margin is not None:
        return f"{value.value:.{digits}f} ± {value.margin:.{digits}f}"
    return f"{value.value if isinstance(value, Mean) else value:.{digits}f}"


def listed(items: Iterable[object]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last


def levels(symbol: str, values: Iterable[object]) -> str:
    """`L = 2, 4 and 8`."""
    return f"{symbol} = {listed(values)}"


def merged(rows: Sequence[str]) -> str:
    """Levels of one symbol as one: `K = 32` and `K = 64` become `K = 32 and 64`."""
    return levels(rows[0].partition(" = ")[0], [row.partition(" = ")[2] for row in rows])


def places(cells: Sequence[Cell]) -> str:
    """The cells in words: `L = 8 and 16 at K = 32 and 64, and L = 32 at K = 64`."""
    widths = {depth: tuple(cell.k for cell in row) for depth, row in Grid(tuple(cells)).by_depth.items()}
    depths: dict[tuple[str, ...], list[int]] = {}
    for depth, row in widths.items():
        depths.setdefault(row, []).append(depth)
    return ", and ".join(f"{levels('L', depths)} at {levels('K', row)}" for row, depths in depths.items())


def network(settings: Settings) -> str:
    """The name of the network's class."""
    return "YourCodeNet" if settings.ycn else "ConvClassifier"


def flat(settings: Settings) -> dict[str, Any]:
    """The settings but K, L and the seed, as one level of plain values: those of the data as `data.source`."""
    values = asdict(settings)
    data = {f"data.{key}": value for key, value in values.pop("data").items() if key != "path"}
    return {key: value for key, value in (values | data).items() if key not in _GRID_KEYS}


def differences(settings: Settings, base: Settings) -> str:
    """What these settings have that others have not: `YourCodeNet, lr = 0.01`."""
    others = flat(base)
    return variant(settings, [key for key, value in flat(settings).items() if value != others[key]])


def variant(settings: Settings, keys: Sequence[str]) -> str:
    """The values of some settings: `YourCodeNet, lr = 0.01`."""
    values = flat(settings)
    return ", ".join(network(settings) if key == "ycn" else f"{key} = {plain(values[key])}" for key in keys)


def grid_names(grids: Sequence[Grid]) -> list[str]:
    """What tells each grid from the others; of a single one, its network."""
    if len(grids) == 1:
        return [network(grids[0].settings)]
    tables = [flat(grid.settings) for grid in grids]
    varied = [key for key in tables[0] if any(table[key] != tables[0][key] for table in tables)]
    varied.sort(key=lambda key: key != "ycn")
    return [variant(grid.settings, varied) for grid in grids]


def plain(value: Any) -> str:
    """A setting's value: `[100, 100]`, `none`, `0.001`."""
    if isinstance(value, tuple):
        return str(list(value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value).lower()


_GRID_KEYS = ("filters_per_layer", "layers_per_block", "seed")
