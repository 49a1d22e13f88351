"""How the trials of a sweep ended, as a table."""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from tune_cnn.early_stopping import how_ended
from tune_cnn.errors import ResultError
from tune_cnn.settings import Settings, varied_keys
from tune_cnn.sweep.live_table import time_left
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trial_folder import TrialFolder, epoch_of
from tune_cnn.texts import aligned, setting_text
from tune_cnn.train_results import FitResult

_COLUMNS = ("epochs", "best val acc %", "at epoch", "test acc %", "time s", "ended")
_SHOWN = {"filters_per_layer": "K", "layers_per_block": "L", "pool_every": "P", "epochs": "most epochs"}


class Outcome(NamedTuple):
    """How a trial ended, or how far it is.

    Attributes:
        cells: The texts of its row in the table.
        is_finished: It will not be trained on.
        has_failed: It ended with an error.
        epochs_left: If it does not stop early.
        epoch_s: Seconds of its last epoch; None: it has none.
    """

    cells: list[str]
    is_finished: bool = False
    has_failed: bool = False
    epochs_left: int = 0
    epoch_s: float | None = None


def outcomes(folder: SweepFolder, experiments: Mapping[str, Settings]) -> dict[str, Outcome]:
    """The outcome of every trial of a sweep, by trial id."""
    trials = {settings.trial_id: settings for settings in experiments.values()}
    return {trial_id: _outcome(folder.trial(settings), settings) for trial_id, settings in trials.items()}


def summary(found: Collection[Outcome], who: str | None) -> str:
    """How far a sweep is and when it will end, in one line; `who` runs it."""
    finished, failed = sum(outcome.is_finished for outcome in found), sum(outcome.has_failed for outcome in found)
    line = f"{finished}/{len(found)} trials finished" + (f", {failed} failed" if failed else "")
    line += f"; {who or 'nobody'} is running it"
    unfinished = [o for o in found if not o.is_finished and not o.has_failed]
    measured = [o.epoch_s for o in found if o.epoch_s is not None]
    if not who or not unfinished or not measured:
        return line
    begun = sum(outcome.epoch_s is not None for outcome in unfinished)
    return f"{line}; {time_left([(o.epochs_left, o.epoch_s) for o in unfinished], measured, begun)}"


def outcome_table(
    folder: SweepFolder, experiments: Mapping[str, Settings], found: Mapping[str, Outcome] | None = None
) -> str:
    """One line a trial: K, L, every other setting that differs, epochs, accuracies in percent, duration, how it ended.

    Args:
        folder: The sweep's.
        experiments: Names and settings.
        found: Their `outcomes`, if they were read already.
    """
    found = outcomes(folder, experiments) if found is None else found
    trials = {settings.trial_id: settings for settings in experiments.values()}
    flat = {trial_id: settings.flat() for trial_id, settings in trials.items()}
    grid = [] if all(settings.model for settings in trials.values()) else ["filters_per_layer", "layers_per_block"]
    keys = list(dict.fromkeys([*grid, *(varied_keys(flat.values()) if flat else [])]))
    rows = [["trial", *(_SHOWN.get(key, key) for key in keys), *_COLUMNS]]
    for trial_id, settings in trials.items():
        shown = [setting_text(flat[trial_id].get(key)) for key in keys]
        rows.append([folder.trial(settings).label, *shown, *found[trial_id].cells])
    return aligned(rows)


def _outcome(trial: TrialFolder, settings: Settings) -> Outcome:
    asked = settings.epochs, settings.early_stopping
    failure = None
    try:
        record = trial.record()
    except ResultError as error:
        return Outcome([*[""] * 5, str(error)], has_failed=True)
    if record is None:
        state = trial.newest_state() or {}
        try:
            results = FitResult.from_state(state.get("history"))
        except ResultError:
            epochs = max(map(epoch_of, trial.checkpoints()), default=0)
            cells = [str(epochs), *[""] * 4, how_ended(None, epochs, *asked, trial.failure())]
            return Outcome(cells, False, trial.failure() is not None, settings.epochs - epochs)
        failure = trial.failure()
        ended = how_ended(None, results.num_epochs, *asked, failure)
        durations_s = state.get("epoch_durations_s", [])
        summary = {"duration_s": math.fsum(durations_s), "epoch_durations_s": durations_s}
    else:
        results, summary = record
        reason = summary.get("stop_reason")
        ended = how_ended(str(reason), results.num_epochs, *asked) if reason else "-"
    cells = [
        str(results.num_epochs),
        f"{results.best_accuracy:.2f}",
        str(results.best_epoch),
        _number(summary.get("test_accuracy"), 2),
        _number(summary.get("duration_s"), 1),
        ended,
    ]
    durations = summary.get("epoch_durations_s")
    epoch_s = durations[-1] if isinstance(durations, list) and durations else None
    left = settings.epochs - results.num_epochs
    return Outcome(cells, record is not None, failure is not None, left, epoch_s if _is_number(epoch_s) else None)


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if _is_number(value) else "-"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
