"""Figure files, one for each row of the grid; a K or an L has the same colour in all of them."""

import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure

from tune_cnn.files import publish_file
from tune_cnn.plot import PANELS, draw_legend, literal, own_style, plot_fit
from tune_cnn.report.figure_rows import Row, figure_rows
from tune_cnn.report.grids import known
from tune_cnn.report.runs import Run, read_runs
from tune_cnn.texts import printable, total
from tune_cnn.train_results import chance

_PANEL_TITLES = ("Training loss", "Training accuracy", "Validation loss", "Validation accuracy")

# Paul Tol's smooth rainbow, which colour-blind readers can tell apart.
_COLOURS = LinearSegmentedColormap.from_list(
    "depth and width",
    ["#6F4C9B", "#5568B8", "#4E96BC", "#60AB9E", "#A6BE54", "#E49C39", "#DF4828", "#95211B", "#521A13"],
)
_MIDDLE = {"K": 90, "L": 5.7}  # the K and the L in the middle of the colour map


def write_figures(result_files: Sequence[Path], out_dir: Path, format: str = "png") -> list[Path]:
    """Write a figure for each row of the grid, that is for experiments that differ in one setting.

    `exp1_1_K32_L2`, `exp1_1_K32_L4`, ... become `exp1_1_K32.png`; see `figure_rows`. Names that differ only in the seed
    (`exp1_1_K32_L2_S7`) are curves of one cell. A K or an L has the same colour in every figure; networks that did not
    learn are dashed. A file that cannot be read is named on stderr and skipped. `format` is `png`, `svg` or `pdf`.

    Returns:
        The files written, in natural order of their names.

    Raises:
        StorageError: A figure cannot be written.
    """
    # A search varies everything at once; `write_search_figure` draws its figure.
    runs = [run for run in read_runs(result_files) if not run.search]
    written = []
    for row in figure_rows([(printable(run.names[0]), run) for run in runs]):
        path = out_dir / f"{row.name}.{format}"
        with own_style():
            # Not pyplot's figure, which would open a window or stay in the notebook's memory.
            fig = Figure(figsize=(11, 8), layout="constrained")
            draw_row(fig, row)
            draw_legend(fig, fig.axes[-1])
            fig.suptitle(literal(row.title), wrap=True)
            publish_file(path, saved(fig, format))
        written.append(path)
    return written


def saved(fig: Figure, format: str) -> bytes:
    """Render a figure as the content of a file; the same figure gives the same bytes."""
    content = io.BytesIO()
    date = {"pdf": "CreationDate", "svg": "Date"}.get(format)
    fig.savefig(content, format=format, dpi=120, metadata={date: None} if date else None)
    return content.getvalue()


def level_colour(axis: str | None, level: str, number: int) -> str:
    """The colour of a level: of K and L the same in every figure, of other settings by their place in the figure."""
    size = total(level)
    if axis not in _MIDDLE or size is None:
        return f"C{number}"
    # Logistic in log2(size): spreads the usual widths and depths, and has a colour for any size.
    return to_hex(_COLOURS(size / (size + _MIDDLE[axis])))


def draw_row(fig: Figure, row: Row) -> None:
    """Draw losses and accuracies of a row in four panels; curves with the same label are the seeds of one cell."""
    axes = fig.subplots(2, 2).ravel()
    dashed = list(dict.fromkeys(label for label, run in row.curves if run.verdict == "did not learn"))
    for number, name in enumerate(dict.fromkeys(label for label, _ in row.curves)):
        cell = [run for label, run in row.curves if label == name]
        legend = literal(f"{name} ({_outcome(cell)})")
        colour = level_colour(row.axis, cell[0].told.get(row.axis or "", ""), number)
        for run in cell:
            # Flat curves overlap, so every second one is dashed in the gaps of the others.
            linestyle = (4 * (dashed.index(name) % 2), (4, 4)) if run.verdict == "did not learn" else "-"
            assert run.history is not None
            plot_fit(run.history, fig, True, legend, color=colour, linestyle=linestyle)
            legend = "_"  # a single legend entry for all seeds of a cell
    for classes, (blind, accuracy) in sorted(
        {(_classes(run), run.blind) for _, run in row.curves if run.verdict == "did not learn"}
    ):
        for ax, panel in zip(axes, PANELS, strict=True):
            level = accuracy
            if panel.endswith("loss"):  # so that a drop of 0.0001 does not look like learning
                level, (low, high) = math.log(classes), ax.get_ylim()
                ax.set_ylim(min(low, 0.9 * level), max(high, 1.1 * level))
            if blind == "chance" or panel.endswith("acc"):  # ln C is the loss of guessing if classes are equal
                ax.axhline(level, color="0.4", linewidth=0.8, linestyle=":", label=f"{blind} ({accuracy:.3g} %)")
    for ax in axes[::2]:
        ax.set_ylabel("Loss (nats, log)")
    for ax, words in zip(axes, _PANEL_TITLES, strict=True):
        ax.set_title(words)
    levels = [min(3 * chance(_classes(run)), 100) for _, run in row.curves]
    top = max(*levels, *(ax.get_ylim()[1] for ax in axes[1::2]))
    for ax in axes[1::2]:  # training and validation on the same scale
        ax.set_ylim(0, top)


def _classes(run: Run) -> int:
    return max(run.settings.data.classes, 2)


def _outcome(cell: list[Run]) -> str:
    """The outcome of a cell for the legend, such as `10.1 %, did not learn` or `61.0 to 63.2 %, 3 runs`."""
    best = sorted(known(run.accuracy for run in cell))
    accuracies = " to ".join(dict.fromkeys(f"{accuracy:.1f}" for accuracy in (*best[:1], *best[-1:])))
    parts = [f"{accuracies} %" if best else "no accuracy"]
    if len(cell) > 1:
        parts.append(f"{len(cell)} runs")
    counts = Counter(run.verdict for run in cell if run.verdict != "learned" and run.accuracy is not None)
    parts += [what if count == len(cell) else f"{count} {what}" for what, count in counts.items()]
    return ", ".join(parts)
