"""Grids, such as K by L, made from result files; each cell is a network, trained once or with several seeds."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

from tune_cnn.report.noise import Mean, mean
from tune_cnn.report.runs import VERDICTS, Run, read_runs
from tune_cnn.settings import Settings, telling_keys
from tune_cnn.texts import by_size, setting_text


@dataclass(frozen=True, eq=False)
class Cell:
    """One network under one set of conditions, trained once or with several seeds."""

    runs: tuple[Run, ...]
    axes: tuple[str, ...] = ("K", "L")  # of its grid

    @property
    def settings(self) -> Settings:
        """The settings of its first run; the runs differ only in the seed."""
        return self.runs[0].settings

    @property
    def label(self) -> str:
        """`K = 64-128, L = 2`; without axes, the name of the network."""
        return ", ".join(f"{axis} = {self.level(axis)}" for axis in self.axes) or self.settings.network

    def level(self, axis: str) -> str:
        """The value on an axis, as text: `64-128`."""
        return self.runs[0].told.get(axis, "none")

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        """The runs with final results."""
        return tuple(run for run in self.runs if run.is_finished)

    @cached_property
    def counts(self) -> Counter[str]:
        """The number of runs per verdict."""
        return Counter(run.verdict for run in self.runs)

    @property
    def state(self) -> str:
        """The best verdict of its runs: the first of `VERDICTS` that occurs."""
        return next(verdict for verdict in VERDICTS if self.counts[verdict])

    @property
    def verdict(self) -> str:
        """`learned`, `unfinished: 3 of 30 epochs`, or if the runs differ, `2 learned, 1 did not learn`."""
        return self.runs[0].progress if len(self.runs) == 1 else _tally(self.counts)

    @property
    def expected(self) -> str:
        """The diagnosis before the training: `trains`, or if the runs differ, `2 trains, 1 at risk`."""
        return _tally(Counter(run.expected for run in self.runs if run.expected)) or "–"

    @cached_property
    def accuracies(self) -> list[float]:
        """The best validation accuracy of each finished run, in percent."""
        return known(run.accuracy for run in self.finished)

    @cached_property
    def accuracy(self) -> Mean | None:
        """The mean best validation accuracy, in percent; of the unfinished runs if none is finished."""
        return mean(self.accuracies or known(run.accuracy for run in self.runs))

    @cached_property
    def test_accuracy(self) -> Mean | None:
        """The mean accuracy on the test set, in percent."""
        return mean(known(run.number("test_accuracy") for run in self.finished or self.runs))

    def mean_of(self, fact: str) -> float | None:
        """The mean of a numeric fact over the runs that have it."""
        found = mean(known(run.number(fact) for run in self.runs))
        return found and found.value

    @property
    def names(self) -> str:
        """The names of its experiments: `exp_K32_L2`, or with several seeds `exp_K32_L2 (seeds 1, 2, 3)`."""
        seeds = dict.fromkeys(setting_text(run.settings.seed) for run in self.runs)
        if len(seeds) == 1:
            return ", ".join(name for run in self.runs for name in run.names)
        found = dict.fromkeys(name.removesuffix(f"_S{run.settings.seed}") for run in self.runs for name in run.names)
        return f"{', '.join(found)} (seeds {', '.join(seeds)})"


def known(values: Iterable[float | None]) -> list[float]:
    """The values that are not None."""
    return [value for value in values if value is not None]


def _tally(counts: Counter[str]) -> str:
    """The name if only one occurs, otherwise how often each does: `2 learned, 1 did not learn`."""
    return ", ".join(name if len(counts) == 1 else f"{count} {name}" for name, count in counts.most_common())


@dataclass(frozen=True, eq=False)
class Row:
    """Cells of a grid that differ only on one axis."""

    fixed: str  # what they have in common, such as `K = 32`; empty in a grid of one axis
    varies: str  # the axis on which they differ, such as `L`
    cells: list[Cell]  # in the order of their values on that axis

    def at(self, subject: str) -> str:
        """The beginning of a sentence about the row: `At K = 32, accuracy`; in a grid of one axis, `Accuracy`."""
        return f"At {self.fixed}, {subject}" if self.fixed else subject.capitalize()

    @cached_property
    def learned(self) -> list[Cell]:
        """The cells in which at least one run learned, and which can therefore be compared."""
        return [cell for cell in self.cells if cell.state == "learned"]


@dataclass(frozen=True, eq=False)
class Grid:
    """Cells that differ only on the grid's axes, ordered by their values there."""

    cells: tuple[Cell, ...]

    @property
    def settings(self) -> Settings:
        """The settings of its first cell; the other cells differ on the axes and in the seed."""
        return self.cells[0].settings

    @property
    def axes(self) -> tuple[str, ...]:
        """K and L, or one or two other settings; empty for a lone or searched custom network."""
        return self.cells[0].axes

    @property
    def conditions(self) -> dict[str, str]:
        """The conditions that all cells share, as texts."""
        return {key: text for key, text in self.cells[0].runs[0].conditions.items() if key not in self.axes}

    @property
    def runs(self) -> list[Run]:
        return [run for cell in self.cells for run in cell.runs]

    def rows(self, varies: str) -> list[Row]:
        """Split the grid into rows in which only this axis varies, such as one over L for each K."""
        fixed = [axis for axis in self.axes if axis != varies]
        cells = sorted(self.cells, key=lambda cell: [by_size(cell.level(axis)) for axis in fixed])
        rows = groupby(cells, key=lambda cell: ", ".join(f"{axis} = {cell.level(axis)}" for axis in fixed))
        return [Row(name, varies, list(row)) for name, row in rows]


def load_grids(
    result_files: Iterable[Path], asked: Mapping[str, Settings] = {}, failures: Mapping[str, str] = {}
) -> list[Grid]:
    """Read result files, and add the experiments of the sweep that have none.

    A file that is damaged or not a result file is named on stderr and skipped. Experiments that share a training become
    one run. The grid with the most cells comes first. `asked` holds the experiments of the sweep by name, and
    `failures` why some of them failed.
    """
    runs = read_runs(result_files)
    found = {name for run in runs for name in run.names}
    runs = [replace(run, failure=failures.get(run.names[0])) if run.verdict == "unfinished" else run for run in runs]
    runs += [Run((name,), asked[name], failure=failures.get(name)) for name in asked if name not in found]
    axes = _axes(runs)
    grids: dict[frozenset[tuple[str, str]], dict[tuple[str, ...], list[Run]]] = {}
    for run in runs:
        cells = grids.setdefault(frozenset((key, text) for key, text in run.told.items() if key not in axes), {})
        _add(cells.setdefault(tuple(run.told.get(axis, "none") for axis in axes), []), run)
    found_grids = [
        Grid(
            tuple(
                Cell(tuple(sorted(cells[levels], key=lambda run: (run.settings.seed is None, run.settings.seed))), axes)
                for levels in sorted(cells, key=lambda levels: list(map(by_size, levels)))
            )
        )
        for cells in grids.values()
    ]
    return sorted(found_grids, key=lambda grid: (-len(grid.cells), grid.settings.network))


def _axes(runs: Sequence[Run]) -> tuple[str, ...]:
    """K and L; if neither varies, the first two settings that do, or none for a lone or searched custom network."""
    keys = telling_keys(run.told for run in runs)
    if not {"K", "L"} & set(keys):
        if keys and not any(run.search for run in runs):
            return tuple(keys[:2])
        if runs and runs[0].settings.model:
            return ()
    return "K", "L"


def _add(runs: list[Run], run: Run) -> None:
    """Add a run to a cell; if the same training is there already, under another name, merge the two."""
    for place, other in enumerate(runs):
        if run.is_same_training(other):
            kept = run if other.history is None or not other.facts else other
            runs[place] = replace(kept, names=(*other.names, *run.names))
            return
    runs.append(run)
