"""A Tune trainable around one trial: one step is one epoch."""

import contextlib
import copy
import gc
import json
import math
import os
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import fmean
from typing import Any, NamedTuple

import torch
from ray.tune import Trainable
from tensorboard.compat.proto.summary_pb2 import Summary

from tune_cnn import models
from tune_cnn.data import Images
from tune_cnn.diagnosis import diagnose
from tune_cnn.errors import SlowerWarning, StorageError
from tune_cnn.settings import DataSettings, Settings, parse_settings
from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.live_table import EpochProgress
from tune_cnn.sweep.pictures import pictures
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.tensorboard import TrialBoard
from tune_cnn.sweep.watcher import CountedBatches, publish
from tune_cnn.texts import named
from tune_cnn.train_results import of_epoch
from tune_cnn.training.devices import default_device, is_cuda_error, is_out_of_memory
from tune_cnn.trial import Trial

# How long to retry failing storage: with 15 s for the last request and 40 s for the driver to exit, under 2 min.
_PATIENCE_S = float(os.environ.get("TUNE_CNN_PATIENCE_S", "30"))
# Minimum time between checkpoints: otherwise, epochs of a second would wait for their files.
_CHECKPOINT_S = float(os.environ.get("TUNE_CNN_CHECKPOINT_S", "10"))


class TrialPlan(NamedTuple):
    """What a worker needs to know about a trial."""

    settings: Settings
    cpus: int
    gpus: float
    is_scheduled: bool = False


class CnnTrainable(Trainable):  # type: ignore[misc]
    """Trains one trial of a sweep, epoch by epoch, from its newest checkpoint.

    Its config holds the trial id and the hyperparameters that differ in the sweep. All settings of that id come with
    `tune.with_parameters`, as do the images, which are read-only views of one copy per node. Checkpoints go to the
    sweep's own folder, after an epoch and at most every 10 s, so a trial continues from there whether Tune restarts it
    after a lost process or the user after a lost night. TensorBoard's events of an epoch are written before its
    checkpoint, since a saved epoch is not trained again. Both are written while the next epoch trains.
    """

    def setup(
        self,
        config: dict[str, Any],
        plans: Mapping[str, TrialPlan],
        images: Mapping[DataSettings, Images],
        folder: SweepFolder,
        overview: Sequence[Summary],
        networks: Mapping[str, dict[str, str]] = {},
    ) -> None:
        models.adopt(networks)
        Folder.patience_s = _PATIENCE_S
        self.plans, self.images, self.sweep_folder, self.overview = plans, images, folder, overview
        self.writer = ThreadPoolExecutor(1, "writer")
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        # The `Trial` is built in `step`, which handles all errors in one place.
        self.trial: Trial | None = None
        self.board: TrialBoard | None = None
        self.warnings: list[str] = []
        self.unkept: Trial | None = None  # set if its last epoch succeeded, but has no checkpoint
        self.writing: Future[Any] = self.writer.submit(int)  # nothing yet
        self.checkpoint_at = -math.inf  # `time.monotonic` of the last checkpoint
        if torch.cuda.is_available():
            gc.collect()  # frees reference cycles, which hold GPU memory
            torch.cuda.empty_cache()
        self.plan = self.plans.get(new_config["trial_id"]) or self.plans[new_config["experiment"]]._replace(
            settings=parse_settings(json.loads(new_config["settings"]))
        )
        self.folder = self.sweep_folder.trial(self.plan.settings)
        return True

    def step(self) -> dict[str, Any]:
        try:
            if self.trial is None and self.folder.is_finished():  # by another process, since this sweep was planned
                return {"done": True, "stop_reason": "finished elsewhere"}
            try:
                return self._run_epoch()
            except StorageError:
                raise
            except Exception as error:
                return self._fail(error)
        except StorageError as error:  # the sweep ends, as nothing more can be saved
            return {"done": True, "failure": str(error), "storage_failed": True}

    def _run_epoch(self) -> dict[str, Any]:
        is_first, self.unkept = self.trial is None, None
        with warnings.catch_warnings(record=True) as slower:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", SlowerWarning)
            trial = self.trial = self.trial or self._start()
            if trial.stop_reason is None:
                if self.plan.is_scheduled and self.folder.is_to_stop(trial.history.num_epochs):
                    trial.end("scheduler")
                else:
                    trial.run_epoch()
        epoch, test = trial.history.num_epochs, trial.test_result
        curves = _curve_points(trial, epoch)
        end = {
            "epochs_without_improvement": trial.history.epochs_without_improvement,
            "stop_reason": trial.stop_reason,
            "test_accuracy": test.accuracy if test else None,
            "test_loss": fmean(test.losses) if test else None,
        }
        is_shown = not is_first and trial.stop_reason == "scheduler"  # TensorBoard has its last epoch already
        shown: dict[str, Any] = {**({"epoch": epoch} if is_shown else curves), **end}
        if test:
            with self._only_warned("TensorBoard"):
                shown["pictures"] = pictures(trial)
        if is_first:
            shown["earlier_epochs"] = [_curve_points(trial, number) for number in range(1, epoch)]
        self._keep(trial, shown)
        messages, self.warnings = [*self.warnings, *dict.fromkeys(str(warning.message) for warning in slower)], []
        return {**curves, **end, "epochs": trial.settings.epochs, "warnings": messages}

    @property
    def _epoch_begun(self) -> int:
        return self.trial.history.num_epochs + 1 if self.trial is not None else 1

    def cleanup(self) -> None:
        if self.unkept is not None:  # for example, when the time budget is used up
            with contextlib.suppress(Exception):  # nobody is left to report it to
                self.writing.result()
                if not self.folder.is_finished():  # by another process
                    self.folder.save_checkpoint(self.unkept.history.num_epochs, self.unkept.state_dict())
        self.writer.shutdown()
        self.trial = None

    def _start(self) -> Trial:
        # Ray sets OMP_NUM_THREADS only where it is not set yet; two trials that each use every core are far slower.
        torch.set_num_threads(self.plan.cpus)
        device = default_device() if self.plan.gpus > 0 else torch.device("cpu")
        if device.type == "cuda" and self.plan.gpus < 1:
            torch.cuda.set_per_process_memory_fraction(self.plan.gpus)
        trial = Trial(self.plan.settings, self.images[self.plan.settings.data], device)
        with self._only_warned("diagnosis"):
            trial.further_facts["diagnosis"] = diagnose(trial.settings, trial.images.train, device).to_json()
        self.warnings += self.folder.resume(trial.load_state_dict)
        if trial.moved:
            self.warnings.append(trial.moved)
        trial.train_batches = CountedBatches(  # type: ignore[assignment]
            trial.train_batches,
            # Through self: a closure over the trial would keep it, with its weights on the GPU, after its end.
            lambda batch, batches: publish(self.folder.folder, EpochProgress(self._epoch_begun, batch, batches)),
        )
        with self._only_warned("TensorBoard"):
            self.board = TrialBoard(self.folder, trial.settings, self.overview)
        return trial

    @contextlib.contextmanager
    def _only_warned(self, what: str) -> Iterator[None]:
        # Training goes on without what only serves to watch it.
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            self.warnings.append(f"{what}: {named(error)}")

    def _keep(self, trial: Trial, shown: Mapping[str, Any]) -> None:
        self.writing.result()  # raises its error if it failed
        if trial.stop_reason is None:
            state, now = None, time.monotonic()
            if now - self.checkpoint_at >= _CHECKPOINT_S:
                self.checkpoint_at, state = now, trial.state_dict()
                state["trainer"] = copy.deepcopy(state["trainer"])  # the rest does not change while it is written
            else:
                self.unkept = trial
            self.writing = self.writer.submit(self._write, shown, state)
        elif not self.folder.is_finished():
            self._show(shown)
            last = trial.state_dict() if trial.can_be_continued else None
            self.folder.finish(trial.history, trial.summary(), trial.best_weights, last)

    def _write(self, shown: Mapping[str, Any], state: dict[str, Any] | None) -> None:
        if self.folder.is_finished():  # by another process, while this one was suspended
            return
        self._show(shown)
        if state is not None:
            self.folder.save_checkpoint(shown["epoch"], state)

    def _show(self, shown: Mapping[str, Any]) -> None:
        if self.board is not None:
            with self._only_warned("TensorBoard"):
                self.board.report(shown)

    def _fail(self, error: Exception) -> dict[str, Any]:
        """Let Tune retry the first time; an error that repeats at the same epoch is final."""
        with contextlib.suppress(Exception):  # saving a checkpoint deletes error.txt: let it end first
            self.writing.result()
        failure = f"epoch {self._epoch_begun}: {named(error)}"
        before = self.folder.failure()
        self.folder.save_failure(failure, traceback.format_exc())
        out_of_memory = is_out_of_memory(error)
        # After a CUDA error, only a new process can use the GPU.
        if not out_of_memory and (before != failure or is_cuda_error(error)):
            raise error
        return {"done": True, "failure": failure, "out_of_memory": out_of_memory}


def _curve_points(trial: Trial, epoch: int) -> dict[str, Any]:
    """Points of the curves at an epoch, counted from 1; accuracies in percent, losses in nats."""
    history = trial.history
    return {
        "epoch": epoch,
        "train_loss": fmean(of_epoch(history.train_loss, epoch, history.num_epochs)),
        "train_accuracy": history.train_acc[epoch - 1],
        "validation_loss": fmean(of_epoch(history.test_loss, epoch, history.num_epochs)),
        "validation_accuracy": history.test_acc[epoch - 1],
        "best_validation_accuracy": max(history.test_acc[:epoch]),
        "epoch_duration_s": trial.epoch_durations_s[epoch - 1],
    }


def has_ended(trial_id: str, result: Mapping[str, Any]) -> bool:
    """Tune's stopper: a trial ends when it reports a `stop_reason`, or that it has failed for good.

    It has no state: each trial counts its epochs without improvement in its own checkpoint and applies the rule itself
    (`early_stopping.stop_reason`), so a retry, a resume or a second sweep cannot make it drift.
    """
    return "failure" in result or result["stop_reason"] is not None
