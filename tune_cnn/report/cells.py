"""Result files -> the cells of one or more grids of K by L, each with its runs and their verdict."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from tune_cnn.diagnosis.verdicts import VERDICTS as EXPECTATIONS
from tune_cnn.errors import ConfigError, ResultError
from tune_cnn.report.noise import Mean, mean
from tune_cnn.report.runs import VERDICTS, Run, read_run, without_path
from tune_cnn.settings import Settings, dashed
from tune_cnn.texts import tell


@dataclass(frozen=True, eq=False)
class Cell:
    """One network and its settings, trained once for each seed."""

    runs: tuple[Run, ...]

    @cached_property
    def settings(self) -> Settings:
        """Of its runs, without the seed."""
        return replace(self.runs[0].settings, seed=None)

    @property
    def widths(self) -> tuple[int, ...]:
        """K."""
        return self.settings.filters_per_layer

    @property
    def k(self) -> str:
        """K as a text: `64-128`."""
        return dashed(self.widths)

    @property
    def depth(self) -> int:
        """L."""
        return self.settings.layers_per_block

    @property
    def label(self) -> str:
        """`K = 64-128, L = 2`."""
        return f"K = {self.k}, L = {self.depth}"

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        """The runs that have results."""
        return tuple(run for run in self.runs if run.history is not None)

    @cached_property
    def counts(self) -> Counter[str]:
        """How many runs there are of each verdict."""
        return Counter(run.verdict for run in self.runs)

    @property
    def state(self) -> str:
        """The best verdict of its runs: the first of `VERDICTS` that occurs."""
        return next(verdict for verdict in VERDICTS if self.counts[verdict])

    @property
    def verdict(self) -> str:
        """`learned`, or for runs that differ `2 learned, 1 did not learn`."""
        if len(self.counts) == 1:
            return self.state
        return ", ".join(f"{self.counts[verdict]} {verdict}" for verdict in VERDICTS if self.counts[verdict])

    @property
    def expected(self) -> str:
        """The diagnosis before the training: `trains`, or for runs that differ `2 trains, 1 at risk`."""
        counts = Counter(run.expected for run in self.runs if run.expected)
        if len(counts) <= 1:
            return next(iter(counts), "–")
        return ", ".join(f"{counts[verdict]} {verdict}" for verdict in EXPECTATIONS if counts[verdict])

    @cached_property
    def accuracies(self) -> list[float]:
        """The best validation accuracy of each run, in percent."""
        return self.values("accuracy")

    @cached_property
    def accuracy(self) -> Mean | None:
        """The mean best validation accuracy, in percent."""
        return mean(self.accuracies)

    @cached_property
    def test_accuracy(self) -> Mean | None:
        """The mean accuracy on the test set, in percent."""
        return mean([value for run in self.finished if (value := run.number("test_accuracy")) is not None])

    def values(self, attribute: str) -> list[float]:
        """A property of each run, where it has one."""
        return [value for run in self.finished if (value := getattr(run, attribute)) is not None]

    def mean_of(self, fact: str) -> float | None:
        """The mean of a fact over the runs that tell it."""
        values = [value for run in self.finished if (value := run.number(fact)) is not None]
        return fmean(values) if values else None


@dataclass(frozen=True, eq=False)
class Grid:
    """Cells whose settings differ in nothing but K and L: narrow ones first, and of those shallow ones first."""

    cells: tuple[Cell, ...]

    @cached_property
    def settings(self) -> Settings:
        """What all cells have in common; K, L and the seed are not part of it."""
        return _common(self.cells[0].settings)

    @cached_property
    def by_width(self) -> dict[str, list[Cell]]:
        """The cells of each K, by L; narrow ones first."""
        rows: dict[str, list[Cell]] = {}
        for cell in self.cells:
            rows.setdefault(cell.k, []).append(cell)
        return rows

    @cached_property
    def by_depth(self) -> dict[int, list[Cell]]:
        """The cells of each L, by K; shallow ones first."""
        rows: dict[int, list[Cell]] = {}
        for cell in sorted(self.cells, key=lambda cell: cell.depth):
            rows.setdefault(cell.depth, []).append(cell)
        return rows


def load_grids(
    result_files: Iterable[Path], asked: Mapping[str, Settings] = {}, failures: Mapping[str, str] = {}
) -> list[Grid]:
    """Read result files, and add what was asked for and has none.

    Args:
        result_files: In any order. A file that is damaged or none of ours is named on stderr and left out.
        asked: The experiments of the sweep: names and settings.
        failures: Why experiments failed, by name.

    Returns:
        The grids, the one with the most cells first. Experiments that share a training are one run.
    """
    runs = []
    for path in sorted(result_files):
        try:
            runs.append(read_run(path))
        except (ResultError, ConfigError) as error:
            tell(f"Left out: {error}", file=sys.stderr)
    found = {name for run in runs for name in run.names}
    runs += [
        Run((name,), without_path(settings), failure=failures.get(name))
        for name, settings in asked.items()
        if name not in found
    ]
    grids: dict[Settings, list[Cell]] = {}
    for cell in sorted(_cells(runs), key=lambda cell: (sum(cell.widths), cell.widths, cell.depth)):
        grids.setdefault(_common(cell.settings), []).append(cell)
    return sorted(
        (Grid(tuple(cells)) for cells in grids.values()), key=lambda grid: (-len(grid.cells), grid.settings.ycn)
    )


def _cells(runs: Sequence[Run]) -> list[Cell]:
    """Group runs whose settings differ in the seed only; a training that several experiments share is one run."""
    cells: dict[Settings, dict[Any, Run]] = {}
    for run in runs:
        same = cells.setdefault(replace(run.settings, seed=None), {})
        # Without a seed, every training is another one.
        key = run.settings.seed if run.settings.seed is not None else run.history and tuple(run.history.train_loss)
        same[key] = replace(same[key], names=(*same[key].names, *run.names)) if key in same else run
    by_seed = lambda run: (run.settings.seed is None, run.settings.seed)  # noqa: E731
    return [
        Cell(tuple(sorted(same.values(), key=by_seed) if len(same) > 1 else same.values())) for same in cells.values()
    ]


def _common(settings: Settings) -> Settings:
    return replace(settings, filters_per_layer=(), layers_per_block=0, seed=None)
