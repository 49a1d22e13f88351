"""The cells of a grid, measured one after the other, and the table of what was found."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tune_cnn.bench.contenders import CONTENDERS, Round
from tune_cnn.bench.workers import Worker
from tune_cnn.models import Cost, cost
from tune_cnn.settings import Settings
from tune_cnn.texts import aligned

PHASES = {"train": "training", "validate": "validation"}


@dataclass(frozen=True)
class CellSpeed:
    """How fast one cell is.

    Attributes:
        name: Of its experiment.
        settings: Its trial's.
        rates: Images per second, by phase (`train`, `validate`), contender and round.
        memory_mb: The most that a further process of this trial took, without its images; NaN where that is not known.
    """

    name: str
    settings: Settings
    rates: Mapping[str, Mapping[str, list[float]]]
    memory_mb: float

    @property
    def cost(self) -> Cost:
        """Parameters and multiply-adds of the network."""
        return cost(self.settings)

    def ratios(self, phase: str, contender: str) -> list[float]:
        """Ours to another's, in each round."""
        pairs = zip(self.rates[phase]["ours"], self.rates[phase][contender], strict=True)
        return [ours / other for ours, other in pairs]

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON values: images per second, and ratios of the turns of the same round."""
        phases: dict[str, Any] = {}
        for phase, heading in PHASES.items():
            rates = {contender: _summary(values) for contender, values in self.rates[phase].items()}
            phases[heading] = {
                "images_per_s": rates,
                "ours_over_by_hand": _summary(self.ratios(phase, "by_hand")),
                "ours_over_convolutions": _summary(self.ratios(phase, "convolutions")),
            }
        return {
            "name": self.name,
            "trial_id": self.settings.trial_id,
            "precision": self.settings.precision,
            **self.cost._asdict(),
            **phases,
            "memory_mb": None if math.isnan(self.memory_mb) else round(self.memory_mb, 1),
        }


def measure_cell(
    name: str, settings: Settings, batches: int, rounds: int, threads: int, say: Callable[[str], None]
) -> CellSpeed:
    """Let the contenders take turns at one cell, so that a busy moment of the machine meets them all.

    Args:
        name: Of its experiment.
        settings: Its trial's.
        batches: Training batches of a turn.
        rounds: Turns of each contender, each in a new process: how its C library keeps freed memory differs from
            process to process, and is worth up to a third of a training step.
        threads: Each contender computes with so many.
        say: Is told what happens.

    Raises:
        DataError: The images cannot be found or read.
        ResourceError: A process died.
    """
    work = Round.of(settings, batches)
    rates: dict[str, dict[str, list[float]]] = {phase: {name: [] for name in CONTENDERS} for phase in PHASES}
    memory_mb = 0.0
    for number in range(1, rounds + 1):
        say(f"{name}: round {number} of {rounds}")
        with ExitStack() as stack:
            workers = {contender: stack.enter_context(Worker(contender, work, threads)) for contender in CONTENDERS}
            for worker in workers.values():
                worker.wait()
            memory_mb = max(memory_mb, workers["ours"].ask("memory"))
            for phase in PHASES:
                for contender, worker in workers.items():
                    rates[phase][contender].append(worker.ask(phase))
    return CellSpeed(name, settings, rates, memory_mb)


def cells_table(cells: Sequence[CellSpeed]) -> str:
    """One line a cell: medians of images per second, and of the ratios of the same round with lowest and highest."""
    rows = [
        [
            *("cell", "precision", "train img/s", "by hand", "convs alone", "x by hand", "of convs"),
            *("val img/s", "by hand", "x by hand", "of convs", "MB"),
        ]
    ]
    for cell in cells:
        rates = {
            phase: {contender: f"{statistics.median(values):,.0f}" for contender, values in by_contender.items()}
            for phase, by_contender in cell.rates.items()
        }
        shares = {phase: f"{statistics.median(cell.ratios(phase, 'convolutions')):.0%}" for phase in PHASES}
        rows.append(
            [
                cell.name,
                cell.settings.precision,
                *(rates["train"][contender] for contender in ("ours", "by_hand", "convolutions")),
                _with_spread(cell.ratios("train", "by_hand")),
                shares["train"],
                *(rates["validate"][contender] for contender in ("ours", "by_hand")),
                _with_spread(cell.ratios("validate", "by_hand")),
                shares["validate"],
                "-" if math.isnan(cell.memory_mb) else f"{cell.memory_mb:.0f}",
            ]
        )
    return aligned(rows)


def _with_spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _summary(values: list[float]) -> dict[str, float]:
    return {
        name: round(function(values), 3)
        for name, function in (("median", statistics.median), ("lowest", min), ("highest", max))
    }
