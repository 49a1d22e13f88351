"""A figure for each row of the grid, as files: one colour for each K and L in all of them."""

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tune_cnn.errors import ConfigError
from tune_cnn.files import publish_file
from tune_cnn.plot import PANELS, draw_legend, natural, own_style, plot_fit, readable
from tune_cnn.train_results import FitResult, chance

FORMATS = ("png", "svg", "pdf")

# The end of a name, as in exp1_1_K32_L8 or exp1_2_L2_K64-128_S7: what stands before it, K or L, its value.
_LAST_PARAMETER = re.compile(r"(.+)_([KL])(\d+(?:-\d+)*)(?:_S\d+)?")

# Paul Tol's smooth rainbow, which colour-blind readers can tell apart.
_COLOURS = LinearSegmentedColormap.from_list(
    "depth and width",
    ["#6F4C9B", "#5568B8", "#4E96BC", "#60AB9E", "#A6BE54", "#E49C39", "#DF4828", "#95211B", "#521A13"],
)


def write_figures(result_files: Sequence[Path], out_dir: Path, format: str = "png") -> list[Path]:
    """Write a figure for each row of the grid: experiments whose names differ in the last parameter only.

    `exp1_1_K32_L2`, `exp1_1_K32_L4`, ... become `exp1_1_K32.png`. The seed in `exp1_1_K32_L2_S7` tells curves of
    one cell apart, not rows. A name that otherwise does not end on K or L gets a figure of its own. A K or an L has the
    same colour in every figure; a network that did not learn is dashed.

    Args:
        result_files: In any order. A file that is damaged or none of ours is named on stderr and left out.
        out_dir: Where the figures are written; made if need be.
        format: One of `FORMATS`.

    Returns:
        The files written, in natural order of their names.

    Raises:
        ConfigError: Another format.
        StorageError: A figure cannot be written.
    """
    if format not in FORMATS:
        raise ConfigError("write_figures", [f"format: {format!r} is not one of {', '.join(FORMATS)}"])
    rows: dict[str, list[_Curve]] = {}
    for path, _, fit_res, trial in readable(result_files):
        curve = _Curve.of(path.stem, fit_res, trial)
        rows.setdefault(curve.row, []).append(curve)
    written = []
    for row in sorted(rows, key=natural):
        content = _saved(row, rows[row], format)
        path = out_dir / f"{row}.{format}"
        publish_file(path, content)
        written.append(path)
    return written


def _saved(row: str, curves: list["_Curve"], format: str) -> bytes:
    """The figure of a row; the same curves give the same bytes, and a PDF has fonts that publishers accept."""
    with own_style():
        # Not pyplot's: it would open a window, or stay in the notebook's memory.
        fig = Figure(figsize=(11, 8), layout="constrained")
        _draw_row(fig, row, curves)
        content = io.BytesIO()
        date = {"pdf": "CreationDate", "svg": "Date"}.get(format)
        fig.savefig(content, format=format, dpi=120, metadata={date: None} if date else None)
    return content.getvalue()


class _Curve(NamedTuple):
    """One experiment in the figure of its row."""

    row: str
    name: str  # in the legend: `L = 8`
    kind: str  # K, L, or nothing
    width: int  # the value of K or L; the sum of several
    fit_res: FitResult
    classes: int

    @classmethod
    def of(cls, experiment: str, fit_res: FitResult, trial: dict[str, Any]) -> "_Curve":
        data = trial.get("data")
        classes = data.get("classes") if isinstance(data, dict) else None
        classes = classes if isinstance(classes, int) and classes > 1 else 10
        end = _LAST_PARAMETER.fullmatch(experiment)
        if not end:
            name = re.sub(r"_S\d+$", "", experiment)
            return cls(name, name, "", 0, fit_res, classes)
        row, kind, value = end.groups()
        return cls(row, f"{kind} = {value}", kind, sum(map(int, value.split("-"))), fit_res, classes)

    @property
    def best(self) -> float:
        """The best validation accuracy in percent; 0 without one."""
        return max((accuracy for accuracy in self.fit_res.test_acc if math.isfinite(accuracy)), default=0.0)

    @property
    def learned(self) -> bool:
        return self.fit_res.has_learned(self.classes)

    @property
    def colour(self) -> Any:
        return parameter_colour(self.kind, self.width) if self.kind else None


def parameter_colour(parameter: str, value: int) -> tuple[float, float, float, float]:
    """The colour of a K or an L, the same in every figure, red, green, blue and alpha from 0 to 1.

    Args:
        parameter: `K` or `L`.
        value: Its value; the sum of several.
    """
    # Logistic over log2, which spreads the usual widths and depths and never ends.
    return _COLOURS(value / (value + {"K": 90, "L": 5.7}[parameter]))  # type: ignore[no-any-return]


def _draw_row(fig: Figure, row: str, curves: list[_Curve]) -> None:
    axes = fig.subplots(2, 2).ravel()
    curves = sorted(curves, key=lambda curve: curve.width)
    flat = [curve for curve in curves if not curve.learned]
    dashed = list(dict.fromkeys(curve.name for curve in flat))
    for name in dict.fromkeys(curve.name for curve in curves):
        cell = [curve for curve in curves if curve.name == name]
        legend = f"{name} ({_outcome(cell)})"
        for curve in cell:
            # Flat curves lie on one another: the second shows in the gaps of the first.
            linestyle = "-" if curve.learned else (4 * (dashed.index(name) % 2), (4, 4))
            plot_fit(curve.fit_res, fig, True, legend, colour=curve.colour, linestyle=linestyle)
            legend = "_" + legend.lstrip("_")  # one entry for all seeds of a cell
    for classes in sorted({curve.classes for curve in flat}):
        for ax, panel in zip(axes, PANELS, strict=True):
            level = chance(classes) if panel.endswith("acc") else math.log(classes)
            if panel.endswith("loss"):  # a fall of 0.0001 is none, and must not look like one
                low, high = ax.get_ylim()
                ax.set_ylim(min(low, 0.9 * level), max(high, 1.1 * level))
            ax.axhline(level, color="0.4", linewidth=0.8, linestyle=":", label=f"chance ({chance(classes):.3g} %)")
    for ax in axes[::2]:
        ax.set_ylabel("Loss (nats, log)")
    for ax, panel in zip(axes, PANELS, strict=True):
        ax.set_title(panel.replace("test_", "validation_"))  # `test` is what the result files call it
    draw_legend(fig, axes[-1])
    top = max(3 * max(chance(curve.classes) for curve in curves), *(ax.get_ylim()[1] for ax in axes[1::2]))
    for ax in axes[1::2]:  # so that training and validation compare at a glance
        ax.set_ylim(0, top)
    fixed = _LAST_PARAMETER.fullmatch(row)
    varied = " and ".join(sorted({curve.kind for curve in curves if curve.kind}))
    title = f"{fixed[1]}: {fixed[2]} = {fixed[3]} fixed" if fixed else row
    fig.suptitle(f"{title}, {varied} varies" if varied else row)


def _outcome(cell: list[_Curve]) -> str:
    """What the legend says of a cell, such as `10.1 %, did not learn` or `61.0 to 63.2 %, 3 runs`."""
    low, high = min(curve.best for curve in cell), max(curve.best for curve in cell)
    text = f"{high:.1f} %" if len(cell) == 1 else f"{low:.1f} to {high:.1f} %, {len(cell)} runs"
    failed = sum(not curve.learned for curve in cell)
    if not failed:
        return text
    return f"{text}, did not learn" if failed == len(cell) else f"{text}, {failed} did not learn"
