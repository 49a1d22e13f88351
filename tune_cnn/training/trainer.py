"""`TorchTrainer`, with which notebooks, single runs and sweeps all train their networks."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from tune_cnn.errors import SlowerWarning
from tune_cnn.train_results import BatchResult, EpochResult, FitResult
from tune_cnn.training.cuda_graph import GraphedStep
from tune_cnn.training.devices import compiled
from tune_cnn.training.ema import Ema
from tune_cnn.training.loop import Batch, losses_of_parts, run_batches, run_epochs
from tune_cnn.training.state import TrainingState

# autocast dtype per precision; the other precisions run without autocast.
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchTrainer:
    """Trains and evaluates a classifier.

    Args:
        model: Maps images (B, C, H, W) to class scores (B, classes). It is moved to `device`.
        loss_fn: Maps scores (B, classes) and labels (B,) to the mean loss.
        optimizer: Updates the model's parameters.
        device: Device to compute on; None: that of the model.
        train_loss_fn: Training loss; defaults to `loss_fn`.
        scheduler: Changes the learning rate; it is stepped after each batch.
        augment: Changes training images (B, C, H, W), before they become floats.
        average: Decay per batch of an exponential moving average (EMA) of the weights, which is evaluated in their
            place; 0: no EMA; None: the model's attribute `average`, or 0 if it has none.
        precision: `bf16` or `fp16`, by autocast, with weights in fp32; else fp32, with TF32 as PyTorch's flags say.
        compile: Compile the model; if that fails, it runs uncompiled.
        cuda_graph: Replay training steps as a CUDA graph (`cuda_graph.GraphedStep`); not with a scheduler, nor in fp16.

    Attributes:
        evaluated: The model that is validated and tested: `model`, or its EMA.

    Images may be floats, which are used as they are, or uint8, which become floats in [0, 1] on the device.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[[Tensor, Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        device: torch.device | str | None = None,
        *,
        train_loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        scheduler: LRScheduler | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        average: float | None = None,
        precision: str = "fp32",
        compile: bool = False,
        cuda_graph: bool = False,
    ) -> None:
        of_weights = next((weight.device for weight in model.parameters()), "cpu")
        self.device = torch.device(of_weights if device is None else device)  # 0 is a GPU
        self.model = model.to(self.device)
        self.loss_fn = loss_fn
        self.optimizer = optimizer
        self.train_loss_fn = train_loss_fn or loss_fn
        self.scheduler = scheduler
        self.augment = augment
        self.precision = precision
        if average is None:
            average = getattr(model, "average", 0.0)
            average = average if isinstance(average, float) and average < 1 else 0.0  # not if it is a layer
        self._average = Ema(self.model, average) if average else None
        self.evaluated: nn.Module = self._average.module if self._average is not None else self.model
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        if compile:
            torch.compiler.reset()  # frees what earlier trials of this process compiled
        self._forward, self._evaluate = (compiled(net) if compile else net for net in (self.model, self.evaluated))
        can_be_graph = scheduler is None and not self._scaler.is_enabled()
        if cuda_graph and not can_be_graph:
            warnings.warn("cuda_graph: not with a schedule, a warm-up or fp16: steps run as usual", SlowerWarning, 2)
        self._graph = GraphedStep(self.model, optimizer) if cuda_graph and can_be_graph else None

    def fit(
        self,
        dl_train: DataLoader[Any],
        dl_val: DataLoader[Any],
        num_epochs: int,
        checkpoints: str | None = None,
        early_stopping: int | None = None,
        print_every: int = 1,
        post_epoch_fn: Callable[[int, EpochResult, EpochResult, bool], None] | None = None,
        max_batches: int | None = None,
    ) -> FitResult:
        """Train for some epochs, with a validation after each.

        Args:
            dl_train: Training batches of images and labels.
            dl_val: Validation batches.
            num_epochs: Maximum number of epochs, including those in the checkpoint.
            checkpoints: Save to `<checkpoints>.pt` whenever the validation accuracy improves; if that file exists
                already, continue from it.
            early_stopping: Stop after this many consecutive epochs without improvement; None: never.
            print_every: Show progress in every `print_every`-th epoch, and in the last; 0: never.
            post_epoch_fn: Called after each epoch with its index from 0, both results, and whether progress was shown.
            max_batches: Maximum number of training batches per epoch; None: all.

        Raises:
            ResultError: The checkpoint file is damaged, not ours, or of another network or optimizer.
        """
        fit = _Fit(self, dl_train, dl_val, max_batches)
        checkpoint = Path(f"{checkpoints}.pt") if checkpoints else None
        run_epochs(fit, num_epochs, early_stopping, checkpoint, print_every, post_epoch_fn)
        return fit.history

    def train_epoch(self, dl: DataLoader[Any], verbose: bool = True, max_batches: int | None = None) -> EpochResult:
        """Train once on each batch of images and labels, or on `max_batches`; with `verbose`, show a progress bar."""
        self.model.train()
        return run_batches(dl, self._train_step, "train_batch", verbose, max_batches)

    @torch.no_grad()
    def test_epoch(
        self,
        dl: DataLoader[Any],
        verbose: bool = True,
        max_batches: int | None = None,
        predictions: list[Tensor] | None = None,
        views: Callable[[Tensor], Sequence[Tensor]] | None = None,
    ) -> EpochResult:
        """Measure loss and accuracy on each batch without changing the weights; arguments as in `train_epoch`.

        A loader with the attribute `loss_batch_size` yields several batches of that size as one, for speed; there is
        still a loss for each of them.

        Args:
            predictions: The predicted classes (B,) of each batch are appended to it.
            views: Test-time augmentation: makes views of a batch of images, whose scores are averaged.
        """
        self.model.eval()
        self.evaluated.eval()
        part = getattr(dl, "loss_batch_size", None)
        step = partial(self._test_step, part=part, predictions=predictions, views=views)
        with self._autocast():  # caches the cast weights over all batches, which inference_mode would prevent
            return run_batches(dl, step, "test_batch", verbose, max_batches)

    def train_batch(self, batch: Batch) -> BatchResult:
        """Take one optimizer step on images (B, C, H, W) and labels (B,)."""
        losses, correct, _ = self._train_step(batch)
        return BatchResult(losses.item(), int(correct.item()))

    @torch.inference_mode()
    def test_batch(self, batch: Batch) -> BatchResult:
        """Measure loss and correct classifications of images (B, C, H, W) and labels (B,)."""
        with self._autocast():
            losses, correct, _ = self._test_step(batch)
        return BatchResult(losses.item(), int(correct.item()))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue as if training had never stopped: weights, optimizer, random state."""
        return self._state().to_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; if parts are missing or unfit, raise a ResultError and change nothing."""
        self._state().load(state)
        if self._graph is not None:
            self._graph.forget()

    def _state(self) -> TrainingState:
        scaler = self._scaler if self._scaler.is_enabled() else None
        parts = {"model": self.model, "optimizer": self.optimizer}
        parts |= {"scheduler": self.scheduler, "average": self._average, "scaler": scaler}
        return TrainingState({name: part for name, part in parts.items() if part is not None}, self.device)

    def _to_device(self, batch: Batch, augment: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        images, labels = (part.to(self.device, non_blocking=True) for part in batch)
        if augment is not None:
            images = augment(images)
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        return images, labels

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype) if dtype else nullcontext()

    def _train_step(self, batch: Batch) -> tuple[Tensor, Tensor, int]:
        images, labels = self._to_device(batch, self.augment)
        update = self._update if self._graph is None else partial(self._graph, self._update)
        loss, correct = update(images, labels)
        if self.scheduler is not None:
            self.scheduler.step()
        if self._average is not None:
            self._average.update_parameters(self.model)
        return loss, correct, len(labels)

    def _update(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take one optimizer step; return the loss (1,) and the number of correctly classified images."""
        self.optimizer.zero_grad()
        with self._autocast():
            scores = self._forward(images)  # (B, classes)
        scores = scores.float()
        loss = self.train_loss_fn(scores, labels)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return loss.detach().reshape(1), (scores.detach().argmax(dim=1) == labels).sum()

    def _test_step(
        self,
        batch: Batch,
        part: int | None = None,
        predictions: list[Tensor] | None = None,
        views: Callable[[Tensor], Sequence[Tensor]] | None = None,
    ) -> tuple[Tensor, Tensor, int]:
        images, labels = self._to_device(batch)
        several = [self._evaluate(view).float() for view in (views(images) if views else [images])]
        scores = torch.stack(several).mean(dim=0)  # (B, classes)
        losses = losses_of_parts(self.loss_fn, scores, labels, part or len(labels))
        classes = scores.argmax(dim=1)
        if predictions is not None:
            predictions.append(classes)
        return losses, (classes == labels).sum(), len(labels)


@dataclass
class _Fit:
    """A call of `TorchTrainer.fit`, in the form that `run_epochs` takes."""

    trainer: TorchTrainer
    dl_train: DataLoader[Any]
    dl_val: DataLoader[Any]
    max_batches: int | None
    history: FitResult = field(default_factory=FitResult.empty)

    def run_epoch(self, verbose: bool) -> tuple[EpochResult, EpochResult]:
        train = self.trainer.train_epoch(self.dl_train, verbose, self.max_batches)
        validation = self.trainer.test_epoch(self.dl_val, verbose)
        self.history = self.history.with_epoch(train, validation)
        return train, validation

    def state_dict(self) -> dict[str, Any]:
        return {**self.trainer.state_dict(), "history": self.history._asdict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        history = FitResult.from_state(state.get("history"), equal_epochs=False)
        self.trainer.load_state_dict(state)
        self.history = history
