"""Speed of a cell: the training of a sweep, a loop written by hand, and the convolutions alone take turns."""

import math
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
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
from tune_cnn.settings import Settings
from tune_cnn.texts import tell
from tune_cnn.training import AUTOCAST
from tune_cnn.training.devices import keep_freed_memory, numerics
from tune_cnn.trial import Trial

_SPAWN = multiprocessing.get_context("spawn")


class Passes(NamedTuple):
    """A contender's passes over the images; each returns the losses of its batches, if it has any."""

    training: Callable[[], Any]
    validation: Callable[[], Any]


def first_images(settings: Settings, batches: int) -> Images:
    """Of a trial's images, those of so many training batches, and no more than that to validate; raises a DataError.

    A contender gets no others: after an array of some 20 MB was freed, glibc keeps what the training steps free, which
    a script of a user's cannot count on.
    """
    images, count = data.load(settings.data), batches * settings.bs_train
    train, validation, test = (ImageSet(part.images[:count].copy(), part.labels[:count].copy()) for part in images[:3])
    return Images(train, validation, test, images.classes)


def ours(settings: Settings, images: Images, device: torch.device) -> Passes:
    """A trial as every sweep runs it."""
    settings = replace(settings, epochs=10**6, early_stopping=None, batches=10**6)  # whose end is far
    trial = Trial(settings, images, device)
    numbers = numerics(device, settings.precision)
    return Passes(
        numbers(lambda: trial.trainer.train_epoch(trial.train_batches, verbose=False).losses),
        numbers(lambda: trial.trainer.test_epoch(trial.validation_batches, verbose=False).losses),
    )


# What a user would write without this package: nothing in it is made slow on purpose, and nothing is tuned.


def conv_classifier(settings: Settings) -> nn.Sequential:
    """`[(Conv -> ReLU)*P -> MaxPool]*(N/P) -> (Linear -> ReLU)*M -> Linear`, one layer after the other."""
    channels, height, width = settings.data.in_size
    layers: list[nn.Module] = []
    for index, filter_count in enumerate(settings.filters, start=1):
        layers += [nn.Conv2d(channels, filter_count, kernel_size=3, padding=1), nn.ReLU()]
        channels = filter_count
        if index % settings.pool_every == 0:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    layers.append(nn.Flatten())
    features = channels * height * width
    for hidden in settings.hidden_dims:
        layers += [nn.Linear(features, hidden), nn.ReLU()]
        features = hidden
    return nn.Sequential(*layers, nn.Linear(features, settings.data.classes))


def pairs(part: ImageSet) -> list[tuple[Tensor, int]]:
    """Each image by itself, as `ToTensor` makes it, float (C, H, W) in [0, 1], and its label."""
    floats = (torch.tensor(image).permute(2, 0, 1).contiguous().float() / 255 for image in part.images)
    return list(zip(floats, map(int, part.labels), strict=True))


def pass_by_hand(
    model: nn.Module, loader: DataLoader[Any], optimizer: torch.optim.Optimizer | None = None
) -> tuple[list[float], int]:
    """Train on each batch, or without an optimizer only evaluate: the losses, and how many images were right."""
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
    """The loop written by hand, in fp32, with Adam, whatever else the settings ask for but TF32."""
    torch.backends.cuda.matmul.allow_tf32 = settings.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = settings.precision != "ieee"
    train, validation = map(pairs, images[:2])
    if settings.seed is not None:
        torch.manual_seed(settings.seed)
    model = (conv_classifier if settings.network == "ConvClassifier" else models.build)(settings).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=settings.lr, weight_decay=settings.reg)
    shuffled: Any = DataLoader(train, settings.bs_train, shuffle=True)  # type: ignore[arg-type]
    in_order: Any = DataLoader(validation, max(settings.bs_train // 4, 1))  # type: ignore[arg-type]
    return Passes(lambda: pass_by_hand(model, shuffled, adam)[0], lambda: pass_by_hand(model, in_order)[0])


def convolve(conv: nn.Conv2d, images: Tensor, times: int, is_training: bool) -> None:
    """Let one conv layer see a batch so many times: forward, and in training the gradients of all that has one."""
    wanted = [part for part in (images, *conv.parameters()) if part.requires_grad]
    with torch.inference_mode(not is_training):
        for _ in range(times):
            result = conv(images)
            if is_training:  # the result stands for its gradient, which has the same size and layout
                torch.autograd.grad(result, wanted, result.detach())


def convolutions(settings: Settings, images: Images, device: torch.device) -> Passes:
    """The limit: the conv layers alone, one after the other, in the trial's number format and layout.

    A training batch is each layer's forward pass and the gradients of its weights and, but for the first layer, of its
    input. Nothing else is done, and each layer finds its images where it left them.
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
    """Let a contender pass over the images, in a new process, where none finds what another has left in memory.

    Returns:
        Images per second of `training` and `validation`; `memory_mb`, the process's own beside its images (NaN off
        Linux), or that of its tensors on a GPU.

    Raises:
        ResourceError: The process died.
    """
    connection, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_serve, args=(theirs, contender, settings, threads, device), daemon=True)
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C ends the parent, and that ends it
    process.start()
    signal.signal(signal.SIGINT, interrupt)
    theirs.close()
    try:
        connection.send(images)  # no argument: the start would wait until they are read, and Ctrl-C would be lost
        answer: dict[str, float] | Exception = connection.recv()
        process.join(10)  # a process that is terminated leaves semaphores behind, of which Python warns
    except (EOFError, ConnectionError):
        remedy = "run it again with --only and fewer --batches"
        raise ResourceError(f"bench: a process died, perhaps out of memory; {remedy}") from None
    finally:
        process.terminate()
        process.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _serve(connection: Connection, contender: str, settings: Settings, threads: int, device: torch.device) -> None:
    torch.set_num_threads(threads)
    try:
        images: Images = connection.recv()
        passes = CONTENDERS[contender](settings, images, device)
        is_gpu = device.type == "cuda"
        wait: Callable[[], object] = torch.cuda.synchronize if is_gpu else int
        for run in passes:
            run()  # the first time, kernels are chosen and memory is fetched
        wait()
        used = torch.cuda.max_memory_reserved(device) / 1e6 if is_gpu else _own_memory_mb() - images.nbytes / 1e6
        found = {"memory_mb": used}
        for name, run, part in zip(passes._fields, passes, images[:2], strict=True):
            started = time.perf_counter()
            run()
            wait()
            found[name] = part.count / (time.perf_counter() - started)
        connection.send(found)
    except Exception as error:
        connection.send(error)


def _own_memory_mb() -> float:
    """What this process keeps in memory, without what it shares with others."""
    if sys.platform != "linux":
        return math.nan
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()  # such as `Private_Dirty:     512 kB`
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6


def measure_cell(
    name: str, settings: Settings, batches: int, rounds: int, threads: int, device: torch.device
) -> dict[str, Any]:
    """Let the contenders take turns at one cell, so that a busy time of the machine meets them all.

    A turn has so many training `batches`. In each of the `rounds`, each contender has a new process: how the C library
    keeps freed memory differs from process to process, and is worth up to a third of a training step.

    Returns:
        JSON values: of training and validation, images per second and ratios of the turns of a round, each as median,
        lowest and highest; and the memory in MB that a further process takes, null off Linux.

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
