"""A Tune trainable around one trial: one step is one epoch."""

import contextlib
import errno
import math
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from ray.tune import Trainable

from tune_cnn.data import Images
from tune_cnn.diagnosis import diagnose
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.pictures import pictures
from tune_cnn.sweep.storage import SweepFolder
from tune_cnn.trial import Trial, default_device


class TrialPlan(NamedTuple):
    """What a worker needs to know about a trial."""

    settings: Settings
    cpus: int
    gpus: float


class CnnTrainable(Trainable):  # type: ignore[misc]
    """Trains one trial of a sweep, epoch by epoch, from its newest checkpoint.

    Its config is `{"trial_id": ...}`; what that id means comes with `tune.with_parameters`, as do the images, which
    are read-only views of one copy per node. It checkpoints into the sweep's own folder at the end of each epoch, so
    whoever starts the trial again, Tune after a lost process or the user after a lost night, continues from there.
    """

    def setup(
        self,
        config: dict[str, Any],
        plans: Mapping[str, TrialPlan],
        images: Mapping[DataSettings, Images],
        folder: SweepFolder,
    ) -> None:
        self.plans = plans
        self.images = images
        self.sweep_folder = folder
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        # Training starts in `step`, so that every error takes the one way out that is there.
        self.trial: Trial | None = None
        self.warnings: list[str] = []
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.plan = self.plans[new_config["trial_id"]]
        self.folder = self.sweep_folder.trial(self.plan.settings)
        return True

    def step(self) -> dict[str, Any]:
        try:
            is_first = self.trial is None
            trial = self.trial = self.trial or self._start()
            if trial.stop_reason is None:
                trial.run_epoch()
            self._keep(trial)
            warnings, self.warnings = self.warnings, []
            # What trained before may have died between a checkpoint and its report.
            earlier = [_curve_points(trial, epoch) for epoch in range(1, trial.history.num_epochs)] if is_first else []
            diagnosis = trial.further_facts if is_first else {}
            return {**_report(trial), **diagnosis, "earlier_epochs": earlier, "warnings": warnings}
        except Exception as error:
            return self._fail(error)

    def cleanup(self) -> None:
        self.trial = None

    def _start(self) -> Trial:
        # Ray sets OMP_NUM_THREADS only where it is not set yet; two trials that each use every core are far slower.
        torch.set_num_threads(self.plan.cpus)
        device = default_device() if self.plan.gpus > 0 else torch.device("cpu")
        if device.type == "cuda" and self.plan.gpus < 1:
            torch.cuda.set_per_process_memory_fraction(self.plan.gpus)
        trial = Trial(self.plan.settings, self.images[self.plan.settings.data], device)
        trial.further_facts["diagnosis"] = diagnose(trial.settings, trial.images.train, device).to_json()
        state, self.warnings = self.folder.load_checkpoint()
        if state is not None:
            trial.load_state_dict(state)
        return trial

    def _keep(self, trial: Trial) -> None:
        if trial.stop_reason is None:
            self.folder.save_checkpoint(trial.history.num_epochs, trial.state_dict())
        else:
            self.folder.finish(trial.settings, trial.history, trial.summary(), trial.best_weights)

    def _fail(self, error: Exception) -> dict[str, Any]:
        """Let Tune retry the first time; an error that repeats at the same epoch is final."""
        epoch = self.trial.history.num_epochs + 1 if self.trial is not None else 1
        message = " ".join(str(error).split())
        failure = f"epoch {epoch}: {type(error).__name__}: {message}"
        before = self.folder.failure()
        # The error may be that nothing can be written.
        with contextlib.suppress(OSError):
            self.folder.save_failure(failure, traceback.format_exc())
        ended = {"done": True, "failure": failure}
        if isinstance(error, torch.OutOfMemoryError):
            return {**ended, "out_of_memory": True}
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return {**ended, "disk_is_full": True}
        if before == failure:
            return ended
        raise error


def _report(trial: Trial) -> dict[str, Any]:
    """What Tune, the live table and TensorBoard are told after an epoch; accuracies in percent, losses in nats."""
    history, settings = trial.history, trial.settings
    test = trial.test_result
    return {
        **_curve_points(trial, history.num_epochs),
        "epochs": settings.epochs,
        "early_stopping": settings.early_stopping,
        "epochs_without_improvement": history.epochs_without_improvement,
        "diverged": not history.is_finite,
        "stop_reason": trial.stop_reason,
        "test_accuracy": test.accuracy if test else None,
        "test_loss": math.fsum(test.losses) / len(test.losses) if test else None,
        "pictures": pictures(trial) if test else {},
    }


def _curve_points(trial: Trial, epoch: int) -> dict[str, Any]:
    """Where the curves are after an epoch, counted from 1; accuracies in percent, losses in nats."""
    history = trial.history
    return {
        "epoch": epoch,
        "train_loss": _mean_of_epoch(history.train_loss, epoch, history.num_epochs),
        "train_accuracy": history.train_acc[epoch - 1],
        "validation_loss": _mean_of_epoch(history.test_loss, epoch, history.num_epochs),
        "validation_accuracy": history.test_acc[epoch - 1],
        "best_validation_accuracy": max(history.test_acc[:epoch]),
        "epoch_duration_s": trial.epoch_durations_s[epoch - 1],
    }


def _mean_of_epoch(losses: Sequence[float], epoch: int, num_epochs: int) -> float:
    count = len(losses) // num_epochs
    return math.fsum(losses[(epoch - 1) * count : epoch * count]) / count
