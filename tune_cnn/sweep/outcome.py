"""How the trials of a sweep ended, as a table."""

import math
from collections.abc import Mapping
from typing import Any

from tune_cnn.early_stopping import how_ended
from tune_cnn.errors import ResultError
from tune_cnn.settings import Settings, dashed, varied_keys
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trial_folder import TrialFolder, epoch_of
from tune_cnn.texts import aligned
from tune_cnn.train_results import FitResult

_COLUMNS = ("epochs", "best val acc %", "at epoch", "test acc %", "time s", "ended")
_SHOWN = {"filters_per_layer": "K", "layers_per_block": "L", "pool_every": "P", "epochs": "most epochs"}


def outcome_table(folder: SweepFolder, experiments: Mapping[str, Settings]) -> str:
    """One line a trial: K, L, every other setting that differs, epochs, accuracies in percent, duration, how it ended.

    Args:
        folder: The sweep's.
        experiments: Names and settings.
    """
    trials = {settings.trial_id: settings for settings in experiments.values()}
    flat = {trial_id: _flat(settings) for trial_id, settings in trials.items()}
    grid = [] if all(settings.model for settings in trials.values()) else ["filters_per_layer", "layers_per_block"]
    keys = list(dict.fromkeys([*grid, *(varied_keys(flat.values()) if flat else [])]))
    rows = [["trial", *(_SHOWN.get(key, key) for key in keys), *_COLUMNS]]
    for trial_id, settings in trials.items():
        trial = folder.trial(settings)
        rows.append([trial.label, *(_text(flat[trial_id].get(key)) for key in keys), *_results(trial, settings)])
    return aligned(rows)


def _flat(settings: Settings) -> dict[str, Any]:
    values = settings.flat()
    return values | {f"data.{key}": value for key, value in values.pop("data").items()}


def _text(value: object) -> str:
    return dashed(value) if isinstance(value, list) else "none" if value is None else str(value)


def _results(trial: TrialFolder, settings: Settings) -> list[str]:
    asked = settings.epochs, settings.early_stopping
    try:
        record = trial.record()
    except ResultError as error:
        return [*[""] * 5, str(error)]
    if record is None:
        state = trial.newest_state() or {}
        try:
            results = FitResult.from_state(state.get("history"))
        except ResultError:
            epochs = max(map(epoch_of, trial.checkpoints()), default=0)
            return [str(epochs), *[""] * 4, how_ended(None, epochs, *asked, trial.failure())]
        ended = how_ended(None, results.num_epochs, *asked, trial.failure())
        summary = {"duration_s": math.fsum(state.get("epoch_durations_s", []))}
    else:
        results, summary = record
        reason = summary.get("stop_reason")
        ended = how_ended(str(reason), results.num_epochs, *asked) if reason else "-"
    return [
        str(results.num_epochs),
        f"{results.best_accuracy:.2f}",
        str(results.best_epoch),
        _number(summary.get("test_accuracy"), 2),
        _number(summary.get("duration_s"), 1),
        ended,
    ]


def _number(value: object, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"
