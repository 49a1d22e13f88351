"""Figures from result files: four panels with the losses and the accuracies of one or more experiments."""

import glob
import io
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from tune_cnn.errors import ConfigError, ResultError, StorageError
from tune_cnn.files import replace_file
from tune_cnn.train_results import FitResult, chance

PANELS = ("train_loss", "train_acc", "test_loss", "test_acc")
FORMATS = ("png", "svg", "pdf")

# The end of a name, as in exp1_1_K32_L8 or exp1_2_L2_K64-128_S7: what stands before it, K or L, its value.
_LAST_PARAMETER = re.compile(r"(.+)_([KL])(\d+(?:-\d+)*)(?:_S\d+)?")

# Paul Tol's smooth rainbow, which colour-blind readers can tell apart.
_COLOURS = LinearSegmentedColormap.from_list(
    "depth and width",
    ["#6F4C9B", "#5568B8", "#4E96BC", "#60AB9E", "#A6BE54", "#E49C39", "#DF4828", "#95211B", "#521A13"],
)


def plot_fit(
    fit_res: FitResult,
    fig: Figure | None = None,
    log_loss: bool = False,
    legend: str | None = None,
    *,
    colour: Any = None,
    linestyle: Any = "-",
) -> tuple[Figure, NDArray[Any]]:
    """Draw a training in four panels: train_loss, train_acc, test_loss, test_acc.

    The training loss is drawn as the mean of each tenth of an epoch, within a faint band that holds the middle 80 % of
    the batches; the validation loss as the mean of each epoch. Both stand at the iteration in the middle, so that long
    and short trainings compare. Losses that are not finite leave a gap.

    Args:
        fit_res: The history: losses in nats, accuracies in percent.
        fig: Add the curves to this figure, which has no axes or four; None: a new pyplot figure.
        log_loss: Logarithmic loss axes.
        legend: What the legend below the panels calls this training; None: no entry.
        colour: Any matplotlib colour; None: the next of the cycle.
        linestyle: Any matplotlib line style.

    Returns:
        The figure, and its four axes (4,) in the order of `PANELS`.

    Raises:
        ValueError: `fig` has neither no axes nor four.
    """
    if fig is None:
        from matplotlib import pyplot  # chooses a backend, which only a figure on a screen needs

        fig = pyplot.figure(figsize=(16, 10), layout="constrained")
    axes = np.array(fig.axes) if fig.axes else fig.subplots(2, 2).ravel()
    if len(axes) != len(PANELS):
        raise ValueError(f"plot_fit: fig has {len(axes)} axes; pass an empty figure or one with four")
    for ax, panel in zip(axes, PANELS, strict=True):
        values = np.array(getattr(fit_res, panel), dtype=float)
        style = {"color": colour, "linestyle": linestyle, "label": legend}
        if panel.endswith("loss"):
            # The weights stand still during a validation: its batches differ in their images only.
            training = panel == "train_loss"
            if log_loss:
                values = np.maximum(values, 1e-8)  # 0 has no place on a logarithmic axis
            _draw_loss(ax, values, max(fit_res.num_epochs, 1) * (10 if training else 1), training, style)
            ax.set(xlabel="Iteration #", ylabel="Loss (log)" if log_loss else "Loss")
            if log_loss:
                _log_scale(ax)
        else:
            ax.plot(np.arange(1, len(values) + 1), values, marker=".", **style)
            ax.set(xlabel="Epoch #", ylabel="Accuracy (%)")
        ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        ax.set_title(panel)
        ax.grid(True, alpha=0.4)
    if legend and not legend.startswith("_"):  # which is how Matplotlib leaves a curve out of its legend
        _draw_legend(fig, axes[-1])
    return fig, axes


def plot_exp_results(filename_pattern: str, results_dir: str | Path = "results") -> Figure | None:
    """Draw every matching result file in one pyplot figure, and print the config that they have in common.

    A file that is damaged or none of ours is named on stderr and left out.

    Args:
        filename_pattern: Such as `exp1_1_K32*.json`.
        results_dir: The folder of the result files.

    Returns:
        The figure; None if no file could be drawn.
    """
    fig, configs = None, []
    for path, config, fit_res, _ in _read(
        Path(results_dir, name) for name in glob.glob(filename_pattern, root_dir=results_dir)
    ):
        prefixed = re.fullmatch(r"exp\d+_(?:\d+_)?(.+)", path.stem)
        fig, _ = plot_fit(fit_res, fig, log_loss=True, legend=prefixed[1] if prefixed else path.stem)
        configs.append(config)
    if fig is None:
        print(f"No results found for pattern {filename_pattern}.", file=sys.stderr)
        return None
    first, *others = configs
    print("common config:", {k: v for k, v in first.items() if all(k in other and other[k] == v for other in others)})
    return fig


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
    for path, _, fit_res, trial in _read(result_files):
        curve = _Curve.of(path.stem, fit_res, trial)
        rows.setdefault(curve.row, []).append(curve)
    written = []
    for row in sorted(rows, key=_natural):
        content = _saved(row, rows[row], format)
        path = out_dir / f"{row}.{format}"
        try:
            out_dir.mkdir(parents=True, exist_ok=True)
            replace_file(path, content)
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be written ({error.strerror}); free some space, or name another folder"
            ) from error
        written.append(path)
    return written


def _saved(row: str, curves: list["_Curve"], format: str) -> bytes:
    """The figure of a row; the same curves give the same bytes, and a PDF has fonts that publishers accept."""
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": row}):
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
    _draw_legend(fig, axes[-1])
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


def _read(paths: Iterable[Path]) -> Iterator[tuple[Path, dict[str, Any], FitResult, dict[str, Any]]]:
    """The readable ones, in natural order; the others are named on stderr."""
    from tune_cnn.experiments import load_result_file  # imports torch

    for path in sorted(paths, key=lambda path: _natural(path.stem)):
        try:
            yield path, *load_result_file(path)
        except ResultError as error:
            print(f"Left out: {error}", file=sys.stderr)


def _natural(name: str) -> list[str | int]:
    """A sorting key with which L2 comes before L16."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _draw_loss(ax: Axes, values: NDArray[Any], parts: int, band: bool, style: dict[str, Any]) -> None:
    """Draw the mean of each of `parts` stretches at its middle iteration, perhaps over the spread of its batches."""
    edges = np.linspace(0, len(values), min(parts, len(values)) + 1).round().astype(int)
    x = (edges[:-1] + 1 + edges[1:]) / 2  # iterations count from 1
    blocks = [values[start:end] for start, end in pairwise(edges)]
    blocks = [block[np.isfinite(block)] for block in blocks]
    mean = [block.mean() if len(block) else np.nan for block in blocks]
    (line,) = ax.plot(x, mean, marker="." if len(mean) <= 40 else "", **style)
    if band and len(values) >= 10 * parts:
        low, high = zip(*(np.quantile(b, (0.1, 0.9)) if len(b) else (np.nan, np.nan) for b in blocks), strict=True)
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.1, linewidth=0)


def _log_scale(ax: Axes) -> None:
    """Plain numbers such as 0.8 and 1.2: losses rarely span a decade, and 8 x 10^-1 is hard to read."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    few = (1, 2, 5) if high < 1000 * low else (1,)
    ticks = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if high < 10 * low else few
    ax.yaxis.set_major_locator(LogLocator(subs=ticks))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())


def _draw_legend(fig: Figure, ax: Axes) -> None:
    """One legend for all panels, below them, where it hides no curve."""
    for old in [legend for legend in fig.legends if legend.get_gid() == "tune_cnn"]:
        old.remove()
    if fig.get_layout_engine() is None:
        fig.set_layout_engine("constrained")  # makes room for it
    handles, labels = ax.get_legend_handles_labels()
    if not labels:
        return
    points_per_entry = (0.6 * max(map(len, labels)) + 5) * matplotlib.rcParams["font.size"]
    most = max(int(fig.get_figwidth() * 72 / points_per_entry), 1)
    rows = math.ceil(len(labels) / most)
    columns = math.ceil(len(labels) / rows)
    fig.legend(handles, labels, loc="outside lower center", ncols=columns).set_gid("tune_cnn")
