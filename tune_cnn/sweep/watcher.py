"""Follows a running sweep: its failures, and the progress within each epoch, as published by the trials' processes."""

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ray.experimental import internal_kv  # Ray's own key-value store; an actor would be one more process
from ray.tune import Callback

from tune_cnn.errors import ResourceError, StorageError, TuneCnnError
from tune_cnn.settings import Settings
from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.live_table import EpochProgress, Progress
from tune_cnn.sweep.ray_errors import last_words, logs_folder, lost_daemon, words_of_dead_workers
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trial_folder import TrialFolder

_PUBLISH_S = 2.0
_NAMESPACE = b"tune_cnn"


class Watcher(Callback):  # type: ignore[misc]
    """A Tune callback that records failures, shows progress, and ends a sweep that cannot go on.

    `check_lock` raises a StorageError if another process may be running the sweep now; `is_new_ray` means that no
    worker process has started yet, and perhaps none can.
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
        self.out_of_memory: list[str] = []  # ids of the trials that ran out of GPU memory
        self.end: TuneCnnError | None = None  # why the sweep ends: storage or Ray failed, or another process runs it
        self._folders = {settings.trial_id: folder.trial(settings) for settings in trials}
        self.progress = progress
        self._check_lock, self._is_new_ray = check_lock, is_new_ray

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into its own state, which we never restore.
        return {}

    def add(self, settings: Settings, trial: TrialFolder, epochs_done: int) -> None:
        """Add a trial whose settings have been suggested."""
        self._folders[settings.trial_id] = trial
        self.progress.added(trial.label, settings, epochs_done)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """End the sweep if its lock or Ray is lost."""
        try:
            self._check_lock()
            if (daemon := lost_daemon()) is not None:
                raise TuneCnnError(
                    f"Ray's process {daemon} was killed, perhaps out of memory; end other programs, then run the "
                    "same command again to continue"
                )
            if self._is_new_ray and (words := words_of_dead_workers(logs_folder())) is not None:
                raise ResourceError(f"the worker processes of Ray end at their start ({words}); fix that and try again")
        except TuneCnnError as error:
            self.end = error
            raise

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._is_new_ray = False
        folder = self._folders[trial.config["trial_id"]]
        trial.custom_trial_name = folder.label  # for trackers: Tune asked for a name before it knew the hyperparameters
        if not trial.num_failures:
            with contextlib.suppress(StorageError):
                folder.forget_failure()
        self.progress.started(folder.label)

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
        if "epoch" not in result:  # it was already finished
            return
        for warning in result["warnings"]:
            self.progress.say(f"{folder.label}: {warning}")
        self.progress.reported(folder.label, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        folder = self._folders[trial.config["trial_id"]]
        failure = self.failures.get(folder.trial_id)
        if failure and _failure(folder):
            failure += f"; see {folder.folder}/error.txt"
        self.progress.ended(folder.label, trial.last_result.get("stop_reason"), failure)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        folder = self._folders[trial.config["trial_id"]]
        self.progress.to_be_retried(folder.label, _failure(folder) or "its process was lost")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        folder = self._folders[trial.config["trial_id"]]
        if (failure := _failure(folder)) is None:
            said = trial.get_error() or ""
            failure = f"its process was lost {trial.num_failures} times: {last_words(said, logs_folder())}"
            with contextlib.suppress(StorageError):
                folder.save_failure(failure, said)
        self.failures[folder.trial_id] = failure
        self.on_trial_complete(iteration, trials, trial)


def _failure(folder: TrialFolder) -> str | None:
    # The storage may be what failed.
    with contextlib.suppress(StorageError):
        return folder.failure()
    return None


class CountedBatches:
    """Wraps a DataLoader; every two seconds, `report` gets the number of batches yielded so far, and their total.

    It does not wait for the GPU, which may lag behind.
    """

    def __init__(self, batches: Any, report: Callable[[int, int], object]) -> None:
        self.batches, self.report = batches, report

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        reported = time.monotonic()
        for count, batch in enumerate(self.batches, start=1):
            yield batch
            if time.monotonic() - reported > _PUBLISH_S:
                self.report(count, len(self.batches))
                reported = time.monotonic()


def publish(folder: Folder, progress: EpochProgress) -> None:
    """Publish the progress of a folder's trial to the driver; errors are ignored, so that training goes on."""
    with contextlib.suppress(Exception):
        internal_kv._internal_kv_put(str(folder).encode(), json.dumps(progress).encode(), namespace=_NAMESPACE)


def published(folder: Folder) -> EpochProgress | None:
    """The progress that the trial of a folder published last; None: nothing yet."""
    with contextlib.suppress(Exception):
        return EpochProgress(*json.loads(internal_kv._internal_kv_get(str(folder).encode(), namespace=_NAMESPACE)))
    return None
