"""The loop over batches, used by every training, and the loop over epochs, used outside sweeps."""

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from tune_cnn.early_stopping import how_ended, stop_reason
from tune_cnn.errors import ResultError
from tune_cnn.train_results import EpochResult, FitResult
from tune_cnn.training.state import load_state, save_state

# Images (B, C, H, W) and labels (B,); a plain DataLoader gives them as a list.
Batch = tuple[Tensor, Tensor] | list[Tensor]

# Seconds between updates of the loss in a progress bar: each one has to wait for the GPU.
_LOSS_INTERVAL_S = 1.0


class Training(Protocol):
    """What `run_epochs` runs: a `Trial`, or a call of `TorchTrainer.fit`."""

    history: FitResult

    def run_epoch(self, verbose: bool) -> tuple[EpochResult, EpochResult]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def run_epochs(
    training: Training,
    num_epochs: int,
    early_stopping: int | None,
    checkpoint: Path | None = None,
    print_every: int = 1,
    post_epoch_fn: Callable[[int, EpochResult, EpochResult, bool], None] | None = None,
) -> None:
    """Run all remaining epochs; the arguments are as in `TorchTrainer.fit`.

    Raises:
        ResultError: The checkpoint is damaged, or does not continue this training.
    """
    if checkpoint is not None and checkpoint.exists():
        print(f"*** Continuing from checkpoint file {checkpoint}")
        state = load_state(checkpoint)
        try:
            training.load_state_dict(state)
        except ResultError as error:
            fault = f"{checkpoint}: does not continue this training: {error}"
            raise ResultError(f"{fault}; delete it, or choose another name") from error
    while (reason := stop_reason(training.history, num_epochs, early_stopping)) is None:
        index = training.history.num_epochs
        verbose = print_every > 0 and (index % print_every == 0 or index == num_epochs - 1)
        if verbose:
            print(f"--- EPOCH {index + 1}/{num_epochs} ---", flush=True)
        train, validation = training.run_epoch(verbose)
        if checkpoint is not None and training.history.best_epoch == training.history.num_epochs:
            save_state(checkpoint, training.state_dict())
        if post_epoch_fn is not None:
            post_epoch_fn(index, train, validation, verbose)
    if print_every > 0 and reason != "epochs":
        print(f"*** {how_ended(reason, training.history.num_epochs, num_epochs, early_stopping)}")


def run_batches(
    dl: DataLoader[Any],
    step: Callable[[Batch], tuple[Tensor, Tensor, int]],
    name: str,
    verbose: bool,
    max_batches: int | None,
) -> EpochResult:
    """Run one pass over the batches; the other arguments are as in `TorchTrainer.train_epoch`.

    Args:
        step: Returns the losses (at least one), the number of correctly classified images, and of all images.
        name: Label of the progress bar.

    Raises:
        ValueError: There are no batches.
    """
    # Losses and counts stay tensors on the device until the epoch's end: reading one waits for the device.
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    num_samples = 0
    total = len(dl) if max_batches is None else min(max_batches, len(dl))
    if total == 0:
        raise ValueError(f"{name}: there are no batches to go through")
    with tqdm(desc=name, total=total, disable=not verbose, dynamic_ncols=True) as bar:
        shown = time.monotonic()
        for batch in islice(dl, total):
            batch_losses, batch_correct, count = step(batch)
            losses.append(batch_losses)
            correct.append(batch_correct)
            num_samples += count
            if verbose and time.monotonic() - shown > _LOSS_INTERVAL_S:
                bar.set_description(f"{name} ({batch_losses[-1].item():.3f})", refresh=False)
                shown = time.monotonic()
            bar.update()
        values = torch.cat(losses).tolist()
        accuracy = 100.0 * int(torch.stack(correct).sum()) / num_samples
        bar.set_description(f"{name} (Avg. Loss {fmean(values):.3f}, Accuracy {accuracy:.1f})", refresh=False)
    return EpochResult(values, accuracy)


def losses_of_parts(loss_fn: Callable[[Tensor, Tensor], Tensor], scores: Tensor, labels: Tensor, size: int) -> Tensor:
    """The mean loss of each chunk of `size` images, from scores (B, classes) and labels (B,)."""
    if scores.is_cuda and type(loss_fn) is nn.CrossEntropyLoss and _is_plain(loss_fn):
        smoothing = loss_fn.label_smoothing
        return means(nn.functional.cross_entropy(scores, labels, reduction="none", label_smoothing=smoothing), size)
    parts = zip(torch.split(scores, size), torch.split(labels, size), strict=True)
    return torch.stack([loss_fn(*part).reshape(()) for part in parts])


def _is_plain(loss: nn.CrossEntropyLoss) -> bool:
    """Whether all images have the same weight, and none is ignored."""
    return loss.weight is None and loss.reduction == "mean" and loss.ignore_index < 0


def means(values: Tensor, size: int) -> Tensor:
    """The mean of each chunk of `size` values, and of the remainder, in few operators: a GPU waits for each launch."""
    whole = len(values) // size * size
    chunks = values[:whole].reshape(-1, size).mean(dim=1)
    return chunks if whole == len(values) else torch.cat([chunks, values[whole:].mean().reshape(1)])
