"""Result files as a sweep writes them, with the accuracies that a test asks for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tune_cnn.experiments import experiment_config
from tune_cnn.report.grids import Grid, load_grids
from tune_cnn.result_files import save_experiment
from tune_cnn.settings import Settings
from tune_cnn.train_results import FitResult

SETTINGS = Settings(seed=42, bs_train=50, epochs=30, early_stopping=5, pool_every=4, hidden_dims=(100,), reg=2e-3)
FLAT = 10.0  # an accuracy of a network that did not learn, among ten classes


def settings(k: int | Sequence[int], depth: int, **changes: Any) -> Settings:
    widths = (k,) if isinstance(k, int) else tuple(k)
    return replace(SETTINGS, filters_per_layer=widths, layers_per_block=depth, **changes)


def history(accuracy: float, training: float | None = None, classes: int = 10) -> FitResult:
    """Four epochs of ten batches; the third reaches the best validation accuracy.

    Args:
        accuracy: The best validation accuracy in percent; up to 1.5 times guessing, the losses stay at guessing.
        training: The training accuracy of that epoch; None: two points more, or guessing.
        classes: Number of classes.
    """
    learned = accuracy > 150 / classes
    training = training if training is not None else accuracy + 2 if learned else 100 / classes
    losses = [math.log(classes) * (1 if not learned else 0.9 - 0.2 * epoch) for epoch in range(4)]
    return FitResult(
        4,
        [loss for loss in losses for _ in range(10)],
        [training - 2, training - 1, training, training + 1],
        [loss for loss in losses for _ in range(5)],
        [accuracy - 3, accuracy - 1, accuracy, accuracy - 0.5],
    )


def write(folder: Path, name: str, trial: Settings, fit: FitResult, **facts: Any) -> Path:
    """Write a result file."""
    summary = {
        "id": trial.trial_id,
        "test_accuracy": max(fit.test_acc, default=0) - 1,
        "stop_reason": "plateau",
        "duration_s": 60.0 * trial.layers_per_block,
        "parameters": 1000 * sum(trial.filters),
        "multiply_adds": 10**6 * sum(trial.filters),
        "data": trial.data.identity(),
        "images": {"train": 480, "validation": 850, "test": 100},
        "device": "cpu",
        "threads": 1,
        "versions": {"tune_cnn": "0.1.0"},
    }
    path = folder / f"{name}.json"
    save_experiment(path, experiment_config(name, folder, trial), fit, {**summary, **facts})
    return path


Cells = Mapping[tuple[int | tuple[int, ...], int], float | Sequence[float]]


def write_grid(folder: Path, cells: Cells, prefix: str = "exp", **changes: Any) -> list[Path]:
    """Write a result file for each accuracy: one with seed 42, or several with seeds 1, 2, ..."""
    files = []
    for (k, depth), accuracies in cells.items():
        several = isinstance(accuracies, Sequence)
        for seed, accuracy in enumerate(accuracies, start=1) if several else [(42, accuracies)]:
            trial = settings(k, depth, seed=seed, **changes)
            name = f"{prefix}_{trial.label}" + (f"_S{seed}" if several else "")
            files.append(write(folder, name, trial, history(accuracy)))
    return files


def one_grid(folder: Path, cells: Cells, **changes: Any) -> Grid:
    """The grid of these cells."""
    (grid,) = load_grids(write_grid(folder, cells, **changes))
    return grid
