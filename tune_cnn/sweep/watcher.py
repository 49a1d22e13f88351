"""Follows a running sweep: the live table, and what failed."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ray.tune import Callback

from tune_cnn.errors import ResourceError, StorageError, TuneCnnError
from tune_cnn.settings import Settings
from tune_cnn.sweep.live_table import Progress
from tune_cnn.sweep.ray_errors import last_words, logs_folder, lost_daemon, words_of_dead_workers
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trial_folder import TrialFolder

_REMOTE_INTERVAL_S = 1.0
_FAILED_INTERVAL_S = 30.0  # a look at a silent storage takes about as long, while the trials' own news wait


class Watcher(Callback):  # type: ignore[misc]
    """A Tune callback.

    Args:
        trials: Their settings.
        check_lock: Raises StorageError if another process may be running the sweep now.
        is_new_ray: No worker process has started yet, and none may be able to.
    """

    def __init__(
        self,
        trials: Iterable[Settings],
        folder: SweepFolder,
        progress: Progress,
        check_lock: Callable[[], object] = lambda: None,
        is_new_ray: bool = False,
    ) -> None:
        self.failures: dict[str, str] = {}  # why trials failed for good, in one line, by trial id
        self.out_of_memory: list[str] = []  # the ids of those whose GPU memory was too small
        self.end: TuneCnnError | None = None  # of the sweep: its storage or Ray fails, or another process runs it now
        self._folders = {settings.trial_id: folder.trial(settings) for settings in trials}
        self._sweep, self._progress = folder, progress
        self._unkept: dict[str, dict[str, Any]] = {}  # the last result of trials whose checkpoint is being written
        self._shown: dict[str, int] = {}  # the last epoch that was shown
        self._looked = self._failed = -math.inf
        self._check_lock, self._is_new_ray = check_lock, is_new_ray
        for trial in self._folders.values():
            progress.continues(trial.label, max(trial.checkpoints(), default=0))

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into a state of its own, from which we never restore.
        return {}

    def add(self, settings: Settings) -> None:
        """A trial has got its settings."""
        self._folders[settings.trial_id] = trial = self._sweep.trial(settings)
        self._progress.added(trial.label, settings)
        self._progress.continues(trial.label, max(trial.checkpoints(), default=0))  # of an earlier sweep

    def drop(self, trial: TrialFolder) -> None:
        """A trial has got settings that need no training."""
        self._progress.dropped(trial.label)

    def forget(self, failed: Iterable[str]) -> None:
        """Trials that failed will run again; who was out of memory is known no more."""
        self.out_of_memory.clear()
        for trial_id in failed:
            self.failures.pop(trial_id, None)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """End the sweep if its lock or Ray is lost."""
        try:
            self._check_lock()
            if (daemon := lost_daemon()) is not None:
                raise TuneCnnError(
                    f"Ray's process {daemon} was killed, perhaps for want of memory; end other programs, then run the "
                    "same command again to continue"
                )
            if self._is_new_ray and (words := words_of_dead_workers(logs_folder())) is not None:
                raise ResourceError(
                    f"the worker processes of Ray end at their start ({words}); mend that and try again"
                )
        except TuneCnnError as error:
            self.end = error
            raise

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._is_new_ray = False
        self._progress.started(self._folders[trial.config["trial_id"]].label)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        self.on_step_begin()  # before the next epoch begins
        trial_id = trial.config["trial_id"]
        folder = self._folders[trial_id]
        if result.get("storage_failed"):
            self.end = StorageError(result["failure"])
            raise self.end
        if "failure" in result:
            self.failures[trial_id] = result["failure"]
            if result.get("out_of_memory"):
                self.out_of_memory.append(trial_id)
            return
        if "epoch" not in result:  # it was finished already
            return
        for warning in result["warnings"]:
            self._progress.say(f"{folder.label}: {warning}")
        # An epoch is shown only once its checkpoint is saved, so it cannot be lost. That is done in the background
        # while the next epoch trains, and has ended when that epoch reports.
        if (before := self._unkept.pop(trial_id, result))["epoch"] < result["epoch"]:
            self._show(trial_id, before)
        self._unkept[trial_id] = result
        self._show_kept([trial_id])

    def on_step_end(self, *_: Any, **__: Any) -> None:
        # Tune calls this ten times a second. A storage elsewhere is asked for one trial a second.
        waiting = list(self._unkept)
        if waiting and not self._folders[waiting[0]].folder.is_local:
            if time.monotonic() - self._looked < _REMOTE_INTERVAL_S:
                return
            self._looked = time.monotonic()
            self._unkept[waiting[0]] = self._unkept.pop(waiting[0])  # the next time it is another one's turn
            waiting = waiting[:1]
        self._show_kept(waiting)

    def _show_kept(self, trial_ids: Iterable[str]) -> None:
        for trial_id in trial_ids:
            if (result := self._unkept.get(trial_id)) and self._is_kept(self._folders[trial_id], result):
                self._show(trial_id, self._unkept.pop(trial_id))

    def _is_kept(self, folder: TrialFolder, result: Mapping[str, Any]) -> bool:
        if result["stop_reason"] is not None:  # the trial was finished before it reported
            return True
        if time.monotonic() - self._failed > _FAILED_INTERVAL_S:
            try:
                return max(folder.checkpoints(), default=0) >= int(result["epoch"])
            except StorageError:
                self._failed = time.monotonic()
        return False

    def _show(self, trial_id: str, result: dict[str, Any]) -> None:
        if result["epoch"] > self._shown.get(trial_id, 0):  # a trial that a scheduler stops reports its last one twice
            self._shown[trial_id] = result["epoch"]
            try:
                self._progress.reported(self._folders[trial_id].label, result)
            except Exception as error:  # which would end the sweep: the training matters more than its watching
                self._progress.say(f"warning: {type(error).__name__}: {error}")

    def _settled(self, trial: Any) -> tuple[str, TrialFolder]:
        """Id and folder of a trial, whose last epoch is shown if it is kept; otherwise it will be trained again."""
        trial_id = trial.config["trial_id"]
        self._show_kept([trial_id])
        self._unkept.pop(trial_id, None)
        return trial_id, self._folders[trial_id]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        trial_id, folder = self._settled(trial)
        self._progress.ended(folder.label, trial.last_result.get("stop_reason"), self.failures.get(trial_id))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        folder = self._settled(trial)[1]
        self._progress.to_be_retried(folder.label, _failure(folder) or "its process was lost")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        trial_id, folder = self._settled(trial)
        self.failures[trial_id] = _failure(folder) or (
            f"its process was lost {trial.num_failures} times: {last_words(trial.get_error() or '', logs_folder())}"
        )
        self._progress.ended(folder.label, None, self.failures[trial_id])


def _failure(folder: TrialFolder) -> str | None:
    # The storage may be what failed.
    with contextlib.suppress(StorageError):
        return folder.failure()
    return None
