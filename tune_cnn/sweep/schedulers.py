"""Tune's schedulers. A trial that they stop ends like any other: tested, recorded, and able to continue later."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler

from tune_cnn.settings import Settings
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trial_folder import TrialFolder

_METRIC, _TIME = "best_validation_accuracy", "epoch"


class _Candidate(NamedTuple):
    """Stands for a Tune trial, and equals that of the same id after a lost process or in a resumed sweep."""

    trial_id: str


class _EndsTrials:
    """Saves each decision to stop a trial, which its next step obeys; Tune itself would stop the trial at once."""

    folders: Mapping[str, TrialFolder]
    seen: dict[_Candidate, int]  # the last epoch decided about; epochs repeat after a lost process

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        super().on_trial_add(controller, _candidate(trial))  # type: ignore[misc]

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        candidate = _candidate(trial)
        is_new = result.get(_METRIC) is not None and result[_TIME] > self.seen.get(candidate, 0)
        if is_new and self._decide(candidate, result) == TrialScheduler.STOP:
            self.folders[candidate.trial_id].stop_after(result[_TIME])
        return TrialScheduler.CONTINUE

    def _decide(self, candidate: _Candidate, result: dict[str, Any]) -> Any:
        self.seen[candidate] = result[_TIME]
        # The median rule fails if a trial that it stopped reports again, as one does that is continued later.
        vars(self).get("_stopped_trials", set()).discard(candidate)
        return super().on_trial_result(None, candidate, result)  # type: ignore[misc]

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if result.get(_METRIC) is not None and result["stop_reason"] != "scheduler":
            super().on_trial_complete(controller, _candidate(trial), result)  # type: ignore[misc]

    def on_trial_remove(self, controller: Any, trial: Any) -> None:
        super().on_trial_remove(controller, _candidate(trial))  # type: ignore[misc]

    def recall(self, trial_id: str, accuracies: Iterable[float]) -> None:
        """Take into account what a trial reported before the sweep was resumed."""
        candidate, best = _Candidate(trial_id), 0.0
        super().on_trial_add(None, candidate)  # type: ignore[misc]
        for epoch, accuracy in enumerate(accuracies, start=1):
            best = max(best, accuracy)
            self._decide(candidate, {_TIME: epoch, _METRIC: best})


class _Asha(_EndsTrials, ASHAScheduler):  # type: ignore[misc]
    """Li et al., 2020, arXiv:1810.05934."""


class _Median(_EndsTrials, MedianStoppingRule):  # type: ignore[misc]
    """Golovin et al., 2017, Google Vizier, section 3.2.2."""


def scheduler(spec: Mapping[str, Mapping[str, Any]], trials: Iterable[Settings], folder: SweepFolder) -> TrialScheduler:
    """Tune's scheduler on the best validation accuracy by epoch, with what the trials have reported so far.

    `spec` is its name with its arguments; finished ones are among the `trials` to compare, too.
    """
    ((name, arguments),) = spec.items()
    trials = list(trials)
    common = {"time_attr": _TIME, "metric": _METRIC, "mode": "max", **arguments}
    made: _Asha | _Median
    if name == "asha":
        made = _Asha(max_t=max(settings.epochs for settings in trials), stop_last_trials=False, **common)
    else:  # it never pauses a trial, as none can be paused in mid-epoch
        made = _Median(min_time_slice=float("inf"), **common)
    made.seen, made.folders = {}, {settings.trial_id: folder.trial(settings) for settings in trials}
    for trial_id, trial in made.folders.items():
        if reported := trial.whole_record() or trial.as_it_stands(trial.newest_state()):
            made.recall(trial_id, reported[0].test_acc)
    return made


def _candidate(trial: Any) -> _Candidate:
    return _Candidate(trial.config["trial_id"])
