"""One training, epoch by epoch: from settings and images to a history, the best weights and their test accuracy.

A trial knows nothing of what runs it: the notebook, a single run and a sweep get the same numbers from it. It can stop
after any epoch and continue elsewhere, bit for bit.
"""

import platform
import time
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import tune_cnn
from tune_cnn import models
from tune_cnn.data import Images, ImageSet
from tune_cnn.data.augmentation import Augmentation, views
from tune_cnn.data.batches import Batches, batches, evaluation_batches
from tune_cnn.errors import ConfigError, ResultError
from tune_cnn.machine import cpu_kind
from tune_cnn.settings import Settings
from tune_cnn.train_results import EpochResult, FitResult
from tune_cnn.training import AUTOCAST, TorchTrainer, say_stop
from tune_cnn.training.checkpoints import load_state, save_state
from tune_cnn.training.memory import keep_freed_memory
from tune_cnn.training.optimizers import build_optimizer, build_scheduler

_MOST_CONFUSED = 100  # classes; the confusions of more would be a file of their own


class Trial:
    """A training that runs one epoch at a time.

    Args:
        settings: What decides its numbers.
        images: What it trains, validates and tests on.
        device: Where to compute.

    Attributes:
        train_batches: Of each epoch, shuffled.
        validation_batches: Computed many at once, reported in batches of `bs_test`.
        history: All epochs so far.
        stop_reason: `epochs`, `plateau` or `diverged` after the last epoch, else None.
        test_result: Losses and accuracy of the best weights on the test set, after the last epoch.
        further_facts: What whoever runs the trial adds to its summary, as JSON values.
        test_predictions: The class that the best weights give to each test image, int64 (N,), after the last epoch.
    """

    def __init__(self, settings: Settings, images: Images, device: torch.device | str = "cpu") -> None:
        self.settings = settings
        self.images = images
        self.device = torch.device(device)
        keep_freed_memory()
        # The draws of the whole training follow from here, in this order: the weights, then each epoch's order.
        if settings.seed is not None:
            torch.manual_seed(settings.seed)
        # Channels-last is the layout in which convolutions are fastest, on cores and on GPUs.
        model = models.build(settings).to(self.device).to(memory_format=torch.channels_last)
        self.train_batches = batches(images.train, settings.bs_train, shuffle=True, max_batches=settings.batches)
        self.trainer = _trainer(model, settings, self.device, settings.epochs * len(self.train_batches))
        self.validation_batches = self._evaluation_batches(images.validation)
        self.history = FitResult.empty()
        self.stop_reason: str | None = None
        self.test_result: EpochResult | None = None
        self.test_predictions: NDArray[np.int64] | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.epoch_durations_s: list[float] = []
        self.further_facts: dict[str, Any] = {}

    def run_epoch(self, verbose: bool = False) -> None:
        """Train and validate one epoch; after the last one, also measure the best weights on the test set.

        Args:
            verbose: Show progress bars.
        """
        started = time.perf_counter()
        train, validation = self.trainer.fit_epoch(self.train_batches, self.validation_batches, verbose)
        self.history = self.history.with_epoch(train, validation)
        if self.history.best_epoch == self.history.num_epochs:
            self.best_weights = {
                name: value.detach().to("cpu", copy=True) for name, value in self.trainer.evaluated.state_dict().items()
            }
        self._finish_if_over(verbose)
        self.epoch_durations_s.append(time.perf_counter() - started)

    def run(self, checkpoint: Path | None = None) -> None:
        """Run all the epochs that are left, and show progress bars.

        Args:
            checkpoint: Saved whenever the validation accuracy improves; continued from if it is there.

        Raises:
            ResultError: The checkpoint is damaged, or that of another trial.
        """
        if checkpoint is not None and checkpoint.exists():
            print(f"*** Continuing from checkpoint file {checkpoint}")
            state = load_state(checkpoint)
            try:
                self.load_state_dict(state)
            except ResultError as error:
                raise ResultError(f"{checkpoint}: {error}; delete it, or choose another name") from error
        while self.stop_reason is None:
            print(f"--- EPOCH {self.history.num_epochs + 1}/{self.settings.epochs} ---", flush=True)
            self.run_epoch(verbose=True)
            if checkpoint is not None and self.history.best_epoch == self.history.num_epochs:
                save_state(checkpoint, self.state_dict())
        say_stop(self.stop_reason, self.settings.early_stopping)

    def _finish_if_over(self, verbose: bool = False) -> None:
        self.stop_reason = self.history.stop_reason(self.settings.epochs, self.settings.early_stopping)
        if self.stop_reason is not None:
            self.trainer.evaluated.load_state_dict(self.best_weights)
            test_batches = self._evaluation_batches(self.images.test)
            predictions: list[Tensor] = []
            self.test_result = self.trainer.test_epoch(
                test_batches, verbose, predictions=predictions, views=partial(views, count=self.settings.test_views)
            )
            self.test_predictions = torch.cat(predictions).cpu().numpy()

    def _evaluation_batches(self, image_set: ImageSet) -> Batches:
        assert self.settings.bs_test is not None
        at_once = evaluated_at_once(self.device, self.settings.precision)
        return evaluation_batches(image_set, self.settings.bs_test, at_once)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values from which another `Trial` of the same settings continues bit for bit."""
        return {
            "trial_id": self.settings.trial_id,
            "trainer": self.trainer.state_dict(),
            "history": self.history._asdict(),
            "best_weights": self.best_weights,
            "epoch_durations_s": self.epoch_durations_s,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave.

        Raises:
            ResultError: The state is that of another trial, or incomplete.
        """
        if state.get("trial_id") != self.settings.trial_id:
            raise ResultError(
                f"a checkpoint of trial {state.get('trial_id')} does not continue {self.settings.trial_id}"
            )
        try:
            self.trainer.load_state_dict(state["trainer"])
            self.history = FitResult(**state["history"])
            self.best_weights = dict(state["best_weights"])
            self.epoch_durations_s = list(state["epoch_durations_s"])
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ResultError(f"an incomplete checkpoint of trial {self.settings.trial_id}: {error}") from error
        self._finish_if_over()

    @cached_property
    def cost(self) -> models.Cost:
        """Parameters and multiply-adds of the network."""
        return models.cost(self.settings)

    @property
    def confusion(self) -> list[list[int]] | None:
        """Numbers of test images by true class (rows) and predicted class (columns), after the last epoch.

        None before it, and where there are more than a hundred classes.
        """
        count = len(self.images.classes)
        if self.test_predictions is None or count > _MOST_CONFUSED:
            return None
        pairs = np.bincount(self.images.test.labels * count + self.test_predictions, minlength=count**2)
        return pairs.reshape(count, count).tolist()  # type: ignore[no-any-return]

    def summary(self) -> dict[str, Any]:
        """The facts that the result file adds to the history, as JSON values; accuracies in percent, losses in nats."""
        test = self.test_result
        return {
            "id": self.settings.trial_id,
            "test_accuracy": test.accuracy if test else None,
            "test_loss": sum(test.losses) / len(test.losses) if test else None,
            "confusion": self.confusion,
            "best_epoch": self.history.best_epoch,
            "best_validation_accuracy": self.history.best_accuracy,
            "stop_reason": self.stop_reason,
            "duration_s": round(sum(self.epoch_durations_s), 3),
            "epoch_durations_s": [round(duration, 3) for duration in self.epoch_durations_s],
            "parameters": self.cost.parameters,
            "multiply_adds": self.cost.multiply_adds,
            "data": self.settings.data.identity(),
            "class_names": list(self.images.classes),
            "images": {
                "train": self.images.train.count,
                "validation": self.images.validation.count,
                "test": self.images.test.count,
            },
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "cpu": cpu_kind(),
            "threads": torch.get_num_threads(),
            "versions": {
                "tune_cnn": tune_cnn.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            **self.further_facts,
        }


def evaluated_at_once(device: torch.device, precision: str) -> int:
    """How many images are evaluated at once, or some more: the device is busy, but its cache holds their maps."""
    if device.type != "cpu":
        return 512
    # At K = 32, 96 at once took up to 15 % longer than 48 in fp32; of numbers half as long, 48 took up to 9 % longer.
    return 96 if precision in AUTOCAST else 48


def _trainer(model: nn.Module, settings: Settings, device: torch.device, batches: int) -> TorchTrainer:
    """What trains the model as the settings say, for so many batches."""
    # Of the whole process, so that a trial leaves nothing of itself to the next one there.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"
    optimizer = build_optimizer(model.parameters(), settings)
    augmentation = Augmentation(settings.flip, settings.translate, settings.cutout)
    return TorchTrainer(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        device,
        train_loss_fn=nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing),
        scheduler=build_scheduler(optimizer, settings, batches),
        augment=augmentation if settings.flip or settings.translate or settings.cutout else None,
        average=settings.average or None,
        precision=settings.precision,
        compile=settings.compile,
    )


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_device(name: torch.device | str | None) -> torch.device:
    """The device of this name; None: the default one.

    Raises:
        ConfigError: There is no such device.
    """
    if name is None:
        return default_device()
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, TypeError) as error:
        fault = str(error).partition("\n")[0].rstrip(".")
        remedy = "leave it out for the GPU if there is one, else the CPU"
        raise ConfigError("device", [f"device: {str(name)!r} cannot be used ({fault}); {remedy}"]) from error
