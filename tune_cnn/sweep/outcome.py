"""How the trials of a sweep ended, as a table."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from tune_cnn.early_stopping import how_ended
from tune_cnn.errors import ResultError
from tune_cnn.settings import Settings
from tune_cnn.sweep.live_table import time_left
from tune_cnn.sweep.plan import setting_rows
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trial_folder import TrialFolder
from tune_cnn.texts import aligned
from tune_cnn.train_results import FitResult

_COLUMNS = ("epochs", "best val acc %", "at epoch", "test acc %", "time s", "ended")
_CHECKPOINT_S = 30.0  # longest time between checkpoints of short epochs, plus time to write one


class Outcome(NamedTuple):
    """How a trial ended, or how far it has got."""

    cells: list[str]  # of its row in the table, for `_COLUMNS`
    is_finished: bool = False  # it needs no further training
    has_failed: bool = False  # it ended with an error
    epochs_left: int = 0  # if it does not stop early; 0 if it has ended
    epoch_s: float | None = None  # seconds of its last epoch, if it has one
    is_running: bool = False  # judged by the age of its newest checkpoint


def outcomes(folder: SweepFolder, experiments: Mapping[str, Settings]) -> dict[str, Outcome]:
    """The outcome of every trial of a sweep, by trial id."""
    trials = {settings.trial_id: settings for settings in experiments.values()}
    return {trial_id: _outcome(folder.trial(settings), settings) for trial_id, settings in trials.items()}


def summary(found: Collection[Outcome], who: str | None) -> str:
    """How far a sweep has got, and when it will end, in one line; `who` is running it."""
    finished, failed = sum(outcome.is_finished for outcome in found), sum(outcome.has_failed for outcome in found)
    counts = f"{finished}/{len(found)} trials finished" + (f", {failed} failed" if failed else "")
    at_once = sum(outcome.is_running for outcome in found)
    lefts = [(outcome.epochs_left, outcome.epoch_s) for outcome in found]
    left = time_left(lefts, at_once) if who and at_once else ""
    return "; ".join(filter(None, [counts, f"{who or 'nobody'} is running it", left]))


def outcome_table(folder: SweepFolder, experiments: Mapping[str, Settings], found: Mapping[str, Outcome]) -> str:
    """A line per trial: settings, epochs, accuracies in percent, duration, how it ended; `found` is from `outcomes`."""
    trials: dict[str, tuple[str, Settings]] = {}
    for name, settings in experiments.items():
        trials.setdefault(settings.trial_id, (name, settings))
    titles, *rows = setting_rows([settings for _, settings in trials.values()])
    table = [["experiment", "trial", *titles, *_COLUMNS]]
    for (trial_id, (name, settings)), row in zip(trials.items(), rows, strict=True):
        table.append([name, folder.trial(settings).label, *row, *found[trial_id].cells])
    # In a search, a trial's settings do not show which experiment it belongs to.
    return aligned(table if folder.searches() else [row[1:] for row in table])


def _outcome(trial: TrialFolder, settings: Settings) -> Outcome:
    try:
        record = trial.record()
    except ResultError as error:
        return Outcome([*[""] * 5, str(error)], has_failed=True)
    failure = trial.failure() if record is None else None
    history, facts = record or trial.as_it_stands(trial.newest_state()) or (FitResult.empty(), {})
    reason = facts.get("stop_reason")
    ended = how_ended(
        str(reason) if reason else None, history.num_epochs, settings.epochs, settings.early_stopping, failure
    )
    numbers = [
        f"{history.best_accuracy:.2f}",
        str(history.best_epoch),
        _number(facts.get("test_accuracy"), 2),
        _number(facts.get("duration_s"), 1),
    ]
    durations = facts.get("epoch_durations_s")
    epoch_s = durations[-1] if isinstance(durations, list) and durations and _is_number(durations[-1]) else None
    is_open = record is None and failure is None
    return Outcome(
        [
            str(history.num_epochs),
            *(numbers if history.num_epochs else [""] * 4),
            ended if reason or not record else "-",
        ],
        is_finished=record is not None,
        has_failed=failure is not None,
        epochs_left=settings.epochs - history.num_epochs if is_open else 0,
        epoch_s=epoch_s,
        is_running=is_open and epoch_s is not None and _is_running(trial, epoch_s),
    )


def _is_running(trial: TrialFolder, epoch_s: float) -> bool:
    # A resumed sweep may have many more trials with checkpoints than run at once. A running trial gets a new checkpoint
    # after each epoch, or after several short ones.
    within_s = 2 * epoch_s + _CHECKPOINT_S
    return any(trial.folder.age_s(name) < within_s for name in trial.checkpoints().values())


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if _is_number(value) else "-"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
