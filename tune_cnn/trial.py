"""One training, epoch by epoch: from settings and images to a history, the best weights and their test accuracy.

A trial does not know what runs it, so the notebook, a single run and a sweep get the same numbers. It can stop after
any epoch and continue elsewhere, bit for bit.
"""

import copy
import time
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tune_cnn import models
from tune_cnn.data import Images, ImageSet
from tune_cnn.data.augmentation import augmented, views
from tune_cnn.data.batches import Batches, evaluated_at_once, evaluation_batches, fits
from tune_cnn.early_stopping import stop_reason, until_stop
from tune_cnn.errors import ResultError
from tune_cnn.machine import changed_machine, machine_facts
from tune_cnn.settings import Settings
from tune_cnn.train_results import EpochResult, FitResult
from tune_cnn.training import TorchTrainer
from tune_cnn.training.devices import keep_freed_memory, numerics
from tune_cnn.training.loop import run_epochs
from tune_cnn.training.optimizers import build_optimizer, build_scheduler
from tune_cnn.training.state import check_settings, check_tensors, course, save_state

_MOST_CONFUSED = 100  # classes; beyond that, the confusion matrix would bloat the result file


class Trial:
    """One training of given settings on given images, run one epoch at a time."""

    def __init__(self, settings: Settings, images: Images, device: torch.device | str = "cpu") -> None:
        self.settings, self.images, self.device = settings, images, torch.device(device)
        keep_freed_memory()
        self._cost = models.cost(settings)
        # Seeds all random draws of the training, in this order: the initial weights, then each epoch's shuffling.
        if settings.seed is not None:
            torch.manual_seed(settings.seed)
        with numerics(self.device, settings.precision):  # sets an environment variable that must precede CUDA's start
            model = models.build(settings).to(self.device)
        self._images_on = self.device if fits(images.nbytes, self.device) else None
        self.train_batches = Batches(
            images.train, settings.bs_train, shuffle=True, max_batches=settings.batches, device=self._images_on
        )
        optimizer = build_optimizer(model.parameters(), settings)
        augment = partial(augmented, flip=settings.flip, translate=settings.translate, cutout=settings.cutout)
        self.trainer = TorchTrainer(
            model,
            nn.CrossEntropyLoss(),
            optimizer,
            self.device,
            train_loss_fn=nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing),
            scheduler=build_scheduler(optimizer, settings, settings.epochs * len(self.train_batches)),
            augment=augment if settings.flip or settings.translate or settings.cutout else None,
            average=settings.average or None,
            precision=settings.precision,
            compile=settings.compile,
            cuda_graph=settings.cuda_graph and self.device.type == "cuda",
        )
        self.validation_batches = self._evaluation_batches(images.validation)  # large; one loss per `bs_test` images
        self.history = FitResult.empty()
        # Set after the last epoch: why training ended, and the best weights' test result and predicted classes (N,).
        self.stop_reason: str | None = None  # `epochs`, `plateau`, `diverged`, or the argument of `end`
        self.test_result: EpochResult | None = None
        self.test_predictions: NDArray[np.int64] | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.epoch_durations_s: list[float] = []
        self.further_facts: dict[str, Any] = {}  # added to the summary by the caller, as JSON values
        self.moved = ""  # message: how this machine differs from the one of the loaded state
        self._is_cut = False  # whether the loaded state has more epochs than `history`

    def run_epoch(self, verbose: bool = False) -> tuple[EpochResult, EpochResult]:
        """Train and validate one epoch; after the last one, also measure the best weights on the test set."""
        started = time.perf_counter()
        with numerics(self.device, self.settings.precision):
            train = self.trainer.train_epoch(self.train_batches, verbose)
            validation = self.trainer.test_epoch(self.validation_batches, verbose)
        self.history = self.history.with_epoch(train, validation)
        if self.history.best_epoch == self.history.num_epochs:
            weights = self.trainer.evaluated.state_dict()
            self.best_weights = {name: value.detach().clone() for name, value in weights.items()}
        self._finish_if_over(verbose)
        self.epoch_durations_s.append(time.perf_counter() - started)
        return train, validation

    def run(self, checkpoint: Path | None = None, epochs: int | None = None) -> None:
        """Run all remaining epochs, with progress bars.

        Args:
            checkpoint: Saved whenever the validation accuracy improves, and at the end; if it exists, continue from it.
            epochs: Stop after this many, where a scheduler did so in the training to be repeated; None: run all.

        Errors are those of `run_epochs`.
        """
        run_epochs(self, epochs or self.settings.epochs, self.settings.early_stopping, checkpoint)
        if self.moved:
            print(f"*** {self.moved}")
        if self.stop_reason is None:
            self.end("scheduler")
        if checkpoint is not None and not self._is_cut:
            save_state(checkpoint, self.state_dict())

    def end(self, reason: str) -> None:
        """End the training now; it can still be continued from the state after its last epoch."""
        self.stop_reason = reason
        self.measure_test()

    def measure_test(self, verbose: bool = False) -> None:
        """Test the best weights so far; the current weights and random state are restored, so training can go on."""
        evaluated = self.trainer.evaluated
        trained = copy.deepcopy(evaluated.state_dict())
        predictions: list[Tensor] = []
        gpus = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(gpus), numerics(self.device, self.settings.precision):
            evaluated.load_state_dict(self.best_weights)
            self.test_result = self.trainer.test_epoch(
                self._evaluation_batches(self.images.test),
                verbose,
                predictions=predictions,
                views=partial(views, count=self.settings.test_views),
            )
            evaluated.load_state_dict(trained)
        self.test_predictions = torch.cat(predictions).cpu().numpy()

    def _finish_if_over(self, verbose: bool = False) -> None:
        self.stop_reason = stop_reason(self.history, self.settings.epochs, self.settings.early_stopping)
        if self.stop_reason is not None:
            self.measure_test(verbose)

    @property
    def can_be_continued(self) -> bool:
        """Whether a training with more epochs or another `early_stopping` could resume from this state."""
        is_complete = self.stop_reason == "epochs" and "epochs" in course(self.settings)
        return self.history.is_finite and not self._is_cut and not is_complete

    def _evaluation_batches(self, image_set: ImageSet) -> Batches:
        assert self.settings.bs_test is not None
        at_once = evaluated_at_once(self.device, self.settings.precision)
        return evaluation_batches(image_set, self.settings.bs_test, at_once, self._images_on)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, as of the end of the last epoch, from which another `Trial` continues bit for bit.

        That trial's settings may differ in what only decides when training ends: `epochs`, unless the learning rate
        depends on it, and `early_stopping`.
        """
        return {
            "trial_id": self.settings.trial_id,
            "settings": self.settings.to_json(),
            "trainer": self.trainer.state_dict(),
            "history": self.history._asdict(),
            "best_weights": self.best_weights,
            "epoch_durations_s": [*self.epoch_durations_s],
            "summary": self.summary(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; if it does not fit, raise an error and change nothing.

        If the state has more epochs than these settings allow, its history is truncated.

        Raises:
            ResultError: The state is incomplete, or of another training, or its best weights are from an epoch beyond
                this trial's last one.
        """
        check_settings(state, self.settings)
        history = FitResult.from_state(state.get("history"))
        durations, best = state.get("epoch_durations_s"), state.get("best_weights")
        if not isinstance(durations, list) or [type(value) for value in durations] != [float] * history.num_epochs:
            raise ResultError("it has no durations of its epochs")
        if not isinstance(best, dict):
            raise ResultError("it has no best weights")
        if history.num_epochs:
            check_tensors(best, self.trainer.evaluated.state_dict())
        cut = until_stop(history, self.settings.epochs, self.settings.early_stopping)
        if cut.best_epoch != history.best_epoch:
            best_of = f"it has the best weights of epoch {history.best_epoch}"
            raise ResultError(f"{best_of}, and this training ends with epoch {cut.num_epochs}")
        self.trainer.load_state_dict(state.get("trainer", {}))
        self.history, self.best_weights, self._is_cut = cut, best, cut is not history
        saved = state.get("summary")
        if changed := changed_machine(saved if isinstance(saved, dict) else {}, machine_facts(self.device), "before"):
            self.moved = f"continued on another machine, where the last digits differ ({'; '.join(changed.values())})"
        self.epoch_durations_s = durations[: cut.num_epochs]
        self._finish_if_over()

    @property
    def confusion(self) -> list[list[int]] | None:
        """Confusion matrix after the last epoch: numbers of test images by true class (row) and predicted class.

        None before that, and for more than 100 classes.
        """
        count = len(self.images.classes)
        if self.test_predictions is None or count > _MOST_CONFUSED:
            return None
        pairs = np.bincount(self.images.test.labels * count + self.test_predictions, minlength=count**2)
        return pairs.reshape(count, count).tolist()  # type: ignore[no-any-return]

    def summary(self) -> dict[str, Any]:
        """Facts that the result file adds to the history, as JSON values; accuracies in percent, losses in nats."""
        test, labels = self.test_result, self.images.validation.labels
        return {
            "id": self.settings.trial_id,
            "test_accuracy": test.accuracy if test else None,
            "test_loss": fmean(test.losses) if test else None,
            "confusion": self.confusion,
            "best_epoch": self.history.best_epoch,
            "best_validation_accuracy": self.history.best_accuracy,
            "stop_reason": self.stop_reason,
            "duration_s": round(sum(self.epoch_durations_s), 3),
            "epoch_durations_s": [round(duration, 3) for duration in self.epoch_durations_s],
            **self._cost._asdict(),
            "data": self.settings.data.identity(),
            "class_names": list(self.images.classes),
            "majority_accuracy": float(100 * np.bincount(labels).max() / len(labels)),
            "images": {name: getattr(self.images, name).count for name in ("train", "validation", "test")},
            **machine_facts(self.device),
            **self.further_facts,
        }
