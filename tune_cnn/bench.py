"""Speed of a cell: a sweep's training, a loop written by hand, and the convolutions alone, measured in turns."""

import math
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tune_cnn import data, models
from tune_cnn.data import Images, ImageSet
from tune_cnn.data.batches import evaluated_at_once
from tune_cnn.errors import ResourceError
from tune_cnn.machine import end_with_parent
from tune_cnn.settings import Settings
from tune_cnn.texts import tell
from tune_cnn.training import AUTOCAST
from tune_cnn.training.devices import keep_freed_memory, numerics
from tune_cnn.trial import Trial


class Passes(NamedTuple):
    """A contender's passes over the images; each returns the losses of its batches, if it computes any."""

    training: Callable[[], Any]
    validation: Callable[[], Any]


def first_images(settings: Settings, batches: int) -> Images:
    """Load the images of so many training batches, and at most as many to validate; raises a DataError.

    A contender gets no others: once an array of some 20 MB has been freed, glibc keeps the memory that training steps
    free, which a user's script cannot count on.
    """
    images, count = data.load(settings.data), batches * settings.bs_train
    train, validation, test = (ImageSet(part.images[:count].copy(), part.labels[:count].copy()) for part in images[:3])
    return Images(train, validation, test, images.classes)


def ours(settings: Settings, images: Images, device: torch.device) -> Passes:
    """A trial as every sweep runs it."""
    settings = replace(settings, epochs=10**6, early_stopping=None, batches=10**6)  # so that it never ends
    trial = Trial(settings, images, device)
    numbers = numerics(device, settings.precision)
    return Passes(
        numbers(lambda: trial.trainer.train_epoch(trial.train_batches, verbose=False).losses),
        numbers(lambda: trial.trainer.test_epoch(trial.validation_batches, verbose=False).losses),
    )


# What a user would write without this package, neither slowed down on purpose nor tuned.


def conv_classifier(settings: Settings) -> nn.Sequential:
    """`[(Conv -> ReLU)*P -> MaxPool]*(N/P) -> (Linear -> ReLU)*M -> Linear`, one layer after the other."""
    layers: list[nn.Module] = []
    for index, filter_count in enumerate(settings.filters, start=1):
        layers += [nn.LazyConv2d(filter_count, kernel_size=3, padding=1), nn.ReLU()]
        if index % settings.pool_every == 0:
            layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    for hidden in settings.hidden_dims:
        layers += [nn.LazyLinear(hidden), nn.ReLU()]
    model = nn.Sequential(*layers, nn.LazyLinear(settings.data.classes))
    model(torch.zeros(1, *settings.data.in_size))  # gives the layers their shapes
    return model


def pairs(part: ImageSet) -> list[tuple[Tensor, int]]:
    """Pair each image, a float tensor (C, H, W) in [0, 1] as `ToTensor` makes it, with its label."""
    floats = (torch.tensor(image).permute(2, 0, 1).contiguous().float() / 255 for image in part.images)
    return list(zip(floats, map(int, part.labels), strict=True))


def pass_by_hand(
    model: nn.Module, loader: DataLoader[Any], optimizer: torch.optim.Optimizer | None = None
) -> tuple[list[float], int]:
    """Train on each batch, or just evaluate without an optimizer; return losses and the number of correct images."""
    losses, correct = [], 0
    model.train(optimizer is not None)
    with torch.set_grad_enabled(optimizer is not None):
        device = next(model.parameters()).device
        for batch in loader:
            images, labels = (part.to(device) for part in batch)
            scores = model(images)
            loss = nn.functional.cross_entropy(scores, labels)
            if optimizer:
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            losses.append(loss.item())
            correct += int((scores.argmax(dim=1) == labels).sum())
    return losses, correct


def by_hand(settings: Settings, images: Images, device: torch.device) -> Passes:
    """The loop written by hand: Adam in fp32, whatever the settings say, except that they decide on TF32."""
    torch.backends.cuda.matmul.allow_tf32 = settings.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = settings.precision != "ieee"
    train, validation = map(pairs, images[:2])
    if settings.seed is not None:
        torch.manual_seed(settings.seed)
    model = (models.build if settings.ycn or settings.model else conv_classifier)(settings).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=settings.lr, weight_decay=settings.reg)
    shuffled: Any = DataLoader(train, settings.bs_train, shuffle=True)  # type: ignore[arg-type]
    in_order: Any = DataLoader(validation, max(settings.bs_train // 4, 1))  # type: ignore[arg-type]
    return Passes(lambda: pass_by_hand(model, shuffled, adam)[0], lambda: pass_by_hand(model, in_order)[0])


def convolve(conv: nn.Conv2d, images: Tensor, times: int, is_training: bool) -> None:
    """Run one conv layer on a batch so many times: the forward pass, and in training the gradients too."""
    wanted = [part for part in (images, *conv.parameters()) if part.requires_grad]
    with torch.inference_mode(not is_training):
        for _ in range(times):
            result = conv(images)
            if is_training:  # the result serves as its own gradient, with the same shape and layout
                torch.autograd.grad(result, wanted, result.detach())


def convolutions(settings: Settings, images: Images, device: torch.device) -> Passes:
    """The limit: the conv layers alone, one after the other, in the trial's dtype and memory format.

    A training batch is each layer's forward pass and the gradients of its weights and, except in the first layer, of
    its input. Nothing else is done, and each layer reuses one input, which may stay in cache.
    """
    keep_freed_memory()
    dtype = AUTOCAST.get(settings.precision, torch.float32)
    layout = torch.channels_last if settings.model is None else torch.contiguous_format
    layers = models.conv_layers(models.build(settings), settings)
    for conv, _, _ in layers:
        conv.requires_grad_().to(device, dtype)

    def run(batch: int, count: int, is_training: bool) -> None:
        for index, (conv, height, width) in enumerate(layers):
            drawn = torch.randn(batch, conv.in_channels, height, width, dtype=dtype, device=device)
            drawn = drawn.to(memory_format=layout).requires_grad_(is_training and index > 0)
            convolve(conv, drawn, math.ceil(count / batch), is_training)

    numbers = numerics(device, settings.precision)
    return Passes(
        numbers(lambda: run(settings.bs_train, images.train.count, True)),
        numbers(lambda: run(evaluated_at_once(device, settings.precision), images.validation.count, False)),
    )


CONTENDERS = {contender.__name__: contender for contender in (ours, by_hand, convolutions)}


def take_turn(
    contender: str, settings: Settings, images: Images, threads: int, device: torch.device
) -> dict[str, float]:
    """Let a contender pass over the images in a new process, where memory holds nothing that another has left.

    Returns:
        Images per second in `training` and `validation`; `memory_mb`, the process's private memory without its images
        (NaN if unknown), or on a GPU the memory reserved for tensors.

    Raises:
        ResourceError: The process died.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=end_with_parent) as pool:
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: on Ctrl-C, the parent ends the child
        turn = pool.submit(_measure, contender, settings, images, threads, device)
        signal.signal(signal.SIGINT, interrupt)
        try:
            return turn.result()
        except BrokenProcessPool:
            remedy = "run it again with --only and fewer --batches"
            raise ResourceError(f"bench: a process died, perhaps out of memory; {remedy}") from None
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _measure(
    contender: str, settings: Settings, images: Images, threads: int, device: torch.device
) -> dict[str, float]:
    torch.set_num_threads(threads)
    passes = CONTENDERS[contender](settings, images, device)
    is_gpu = device.type == "cuda"
    wait: Callable[[], object] = torch.cuda.synchronize if is_gpu else int
    for run in passes:
        run()  # warm-up, in which kernels are chosen and memory is allocated
    wait()
    used = torch.cuda.max_memory_reserved(device) / 1e6 if is_gpu else _own_memory_mb() - images.nbytes / 1e6
    measured = {"memory_mb": used}
    for name, run, part in zip(passes._fields, passes, images[:2], strict=True):
        started = time.perf_counter()
        run()
        wait()
        measured[name] = part.count / (time.perf_counter() - started)
    return measured


def _own_memory_mb() -> float:
    """The private memory of this process in MB, without what it shares with others; NaN if unknown."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()  # such as `Private_Dirty:     512 kB`
    except OSError:  # not Linux, or a sandbox such as gVisor
        return math.nan
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6


def measure_cell(
    name: str, settings: Settings, batches: int, rounds: int, threads: int, device: torch.device
) -> dict[str, Any]:
    """Let the contenders take turns at one cell, so that a busy spell of the machine affects them all.

    A turn has so many training `batches`. In each of the `rounds`, each contender gets a new process: how the C library
    keeps freed memory differs from process to process, and costs up to a third of a training step.

    Returns:
        JSON values: for training and validation, images per second and their ratios within a round, each as median,
        lowest and highest; and the memory in MB that a further process takes, null if unknown.

    Raises:
        DataError: The images cannot be found or read.
        ResourceError: A process died.
    """
    images, turns = first_images(settings, batches), []
    for number in range(1, rounds + 1):
        tell(f"{name}: round {number} of {rounds}", file=sys.stderr)
        turns.append({contender: take_turn(contender, settings, images, threads, device) for contender in CONTENDERS})
    cell: dict[str, Any] = {"name": name, "trial_id": settings.trial_id, "precision": settings.precision}
    cell |= models.cost(settings)._asdict()
    for phase in Passes._fields:
        rates = {contender: [turn[contender][phase] for turn in turns] for contender in CONTENDERS}
        cell[phase] = {"images_per_s": {contender: _summary(values) for contender, values in rates.items()}}
        for other in ("by_hand", "convolutions"):
            cell[phase][f"ours_over_{other}"] = _summary([turn["ours"][phase] / turn[other][phase] for turn in turns])
    memory_mb = max(turn["ours"]["memory_mb"] for turn in turns)
    return {**cell, "memory_mb": None if math.isnan(memory_mb) else round(memory_mb, 1)}


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(median(values), 3), "lowest": round(min(values), 3), "highest": round(max(values), 3)}
