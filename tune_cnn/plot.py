"""The notebook's figures: losses and accuracies of one or more trainings in four panels."""

import contextlib
import glob
import math
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

try:
    import matplotlib
except (OSError, ValueError):  # MPLBACKEND or matplotlibrc is unusable: do without them
    os.environ.pop("MPLBACKEND", None)
    for part in [name for name in sys.modules if name.startswith("matplotlib.")]:
        del sys.modules[part]
    with contextlib.chdir(os.path.join(os.path.dirname(find_spec("matplotlib").origin), "mpl-data")):  # type: ignore
        import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from tune_cnn.result_files import load_result_file, readable
from tune_cnn.texts import printable, tell
from tune_cnn.train_results import FitResult

PANELS = ("train_loss", "train_acc", "test_loss", "test_acc")


def plot_fit(
    fit_res: FitResult,
    fig: Figure | None = None,
    log_loss: bool = False,
    legend: str | None = None,
    **style: Any,
) -> tuple[Figure, NDArray[Any]]:
    """Draw a training in four panels: train_loss, train_acc, test_loss, test_acc.

    The training loss is drawn as the mean of each tenth of an epoch, over a faint band with the middle 80 % of its
    batches; the validation loss as the mean of each epoch. Losses that are not finite leave a gap.

    Args:
        fit_res: The history: losses in nats, accuracies in percent.
        fig: Figure to add the curves to, empty or with four axes; None: a new pyplot figure.
        log_loss: Logarithmic loss axes.
        legend: Label of this training in the legend below the panels; None: no entry.
        **style: Keyword arguments of `Axes.plot` for the curves.

    Returns:
        The figure, and its four axes (4,) in the order of `PANELS`.

    Raises:
        ValueError: `fig` has axes, but not four.
    """
    if fig is None:
        from matplotlib import pyplot  # imported late: it chooses a backend, which figure files do not need

        fig = pyplot.figure(figsize=(16, 10), layout="constrained")
    axes = np.array(fig.axes) if fig.axes else fig.subplots(2, 2).ravel()
    if len(axes) != len(PANELS):
        raise ValueError(f"plot_fit: fig has {len(axes)} axes; pass an empty figure or one with four")
    for ax, panel in zip(axes, PANELS, strict=True):
        values = np.array(getattr(fit_res, panel), dtype=float)
        if panel.endswith("loss"):
            if log_loss:
                values = np.maximum(values, 1e-8)  # a logarithmic axis cannot show 0
            _draw_loss(ax, values, max(fit_res.num_epochs, 1), panel == "train_loss", label=legend, **style)
            ax.set_ylabel("Loss (log)" if log_loss else "Loss")
            if log_loss:
                log_scale(ax.yaxis)
        else:
            ax.plot(np.arange(1, len(values) + 1), values, marker=".", label=legend, **style)
            ax.set_ylabel("Accuracy (%)")
        ax.set_xlabel("Epoch #")
        ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        ax.set_title(panel)
        ax.grid(True, alpha=0.4)
    if legend and not legend.startswith("_"):  # Matplotlib hides labels that begin with _
        draw_legend(fig, axes[-1])
    return fig, axes


def plot_exp_results(filename_pattern: str, results_dir: str | Path = "results") -> Figure | None:
    """Draw every matching result file in one pyplot figure, and print the config that they have in common.

    A file that is damaged or not a result file is named on stderr and skipped.

    Args:
        filename_pattern: Glob pattern, such as `exp1_1_K32*.json`; `.json` may be omitted.
        results_dir: The folder of the result files.

    Returns:
        The figure; None if no file could be drawn.
    """
    fig, configs = None, []
    for path, (config, fit_res, _) in readable(matching([filename_pattern], Path(results_dir)), load_result_file):
        prefixed = re.fullmatch(r"exp\d+_(?:\d+_)?(.+)", path.stem)
        fig, _ = plot_fit(fit_res, fig, log_loss=True, legend=literal(prefixed[1] if prefixed else path.stem))
        configs.append(config)
    if fig is None:
        tell(f"No results found for pattern {filename_pattern}.", file=sys.stderr)
        return None
    first, *others = configs
    common = {k: v for k, v in first.items() if all(k in other and other[k] == v for other in others)}
    tell(f"common config: {common}")
    return fig


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Draw and save figures in Matplotlib's default style, whatever the user's matplotlibrc or notebook has set.

    Equal figures give equal bytes, and PDFs embed TrueType fonts, which publishers accept.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"pdf.fonttype": 42, "svg.hashsalt": "tune_cnn"})
        yield


def literal(text: str) -> str:
    """Escape a text, so that Matplotlib draws it verbatim, without mathtext, and never hides it from the legend."""
    text = printable(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def matching(patterns: Iterable[str], folder: Path) -> list[Path]:
    """Result files whose names match any of the glob patterns, which may omit `.json`."""
    names = [f"{pattern.removesuffix('.json')}.json" for pattern in patterns]
    return sorted({folder / found for name in names for found in glob.glob(name, root_dir=folder)})


def _draw_loss(ax: Axes, values: NDArray[Any], epochs: int, is_training: bool, **style: Any) -> None:
    """Draw the mean loss of each epoch, in training of each tenth of it with the spread of its batches, at its end."""
    parts = epochs * (10 if is_training else 1)
    edges = np.linspace(0, len(values), min(parts, len(values)) + 1).round().astype(int)
    x = edges[1:] * epochs / len(values)
    blocks = [values[start:end] for start, end in pairwise(edges)]
    blocks = [block[np.isfinite(block)] for block in blocks]
    mean = [block.mean() if len(block) else np.nan for block in blocks]
    (line,) = ax.plot(x, mean, marker="." if len(mean) <= 40 else "", **style)
    if is_training and len(values) >= 10 * parts:
        low, high = zip(*(np.quantile(b, (0.1, 0.9)) if len(b) else (np.nan, np.nan) for b in blocks), strict=True)
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.1, linewidth=0)


def log_scale(axis: XAxis | YAxis) -> None:
    """Make the axis of a drawing logarithmic, with plain ticks: 8 x 10^-1 is hard to read."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    few = (1, 2, 5) if high < 100 * low else (1,)
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8) if high < 10 * low else few))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def draw_legend(fig: Figure, ax: Axes) -> None:
    """Draw one legend for all panels, below them, where it hides no curve."""
    for old in [legend for legend in fig.legends if legend.get_gid() == "tune_cnn"]:
        old.remove()
    if fig.get_layout_engine() is None:
        fig.set_layout_engine("constrained")  # makes room for the legend
    handles, labels = ax.get_legend_handles_labels()
    if not labels:
        return
    points_per_entry = (0.6 * max(map(len, labels)) + 5) * matplotlib.rcParams["font.size"]
    most = max(int(fig.get_figwidth() * 72 / points_per_entry), 1)
    columns = math.ceil(len(labels) / math.ceil(len(labels) / most))  # rows of equal length
    fig.legend(handles, labels, loc="outside lower center", ncols=columns).set_gid("tune_cnn")
