"""How fast a trial's network trains here, and what it takes of a GPU's memory: told from a few steps."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from tune_cnn.data import Images, ImageSet
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.resources import GpuMemory
from tune_cnn.training.checkpoints import state_to_bytes
from tune_cnn.training.devices import default_device
from tune_cnn.training.loop import Batch
from tune_cnn.trial import Trial, evaluated_at_once

_MOST_BATCHES = 100
_SMALL_BATCH = 6  # images; enough to tell the time of an image where a whole batch takes too long
_MEASURING_S = 120.0


class Pace(NamedTuple):
    """What the parts of a training take, in seconds.

    Attributes:
        train_batch_s: A training batch.
        evaluated_image_s: An image of the validation or test set.
        checkpoint_s: A checkpoint, without what the disk takes.
    """

    train_batch_s: float
    evaluated_image_s: float
    checkpoint_s: float


def network_of(settings: Settings) -> Settings:
    """The same for all trials whose batches take equally long: what makes no difference has one value."""
    data = DataSettings("shapes", in_size=settings.data.in_size, classes=settings.data.classes)
    neutral = replace(settings, seed=0, lr=1e-3, reg=1e-3, epochs=1000, batches=1000, early_stopping=None, data=data)
    # To compile a network takes longer than all the rest here; without it, the times are still the most it takes.
    return replace(neutral, compile=False)


def measure_pace(settings: Settings, device: torch.device, within_s: float) -> Pace:
    """Time a few steps of a trial, on random images and with the threads that PyTorch has now.

    Args:
        settings: Of the trial.
        device: Where to compute.
        within_s: Take about so long.
    """
    trial = _trial(settings, device)
    trainer = trial.trainer
    train, evaluated = next(iter(trial.train_batches)), next(iter(trial.validation_batches))
    train_batch_s = _seconds(
        lambda: trainer.train_batch(_first(train)),
        lambda count: trainer.train_epoch(trial.train_batches, False, count),
        _share(train),
        within_s / 2,
    )
    evaluation_batch_s = _seconds(
        lambda: trainer.test_batch(_first(evaluated)),
        lambda count: trainer.test_epoch(trial.validation_batches, False, count),
        _share(evaluated),
        within_s / 4,
    )
    trial.best_weights = trainer.evaluated.state_dict()
    checkpoint_s = _duration(lambda: state_to_bytes(trial.state_dict()))
    return Pace(train_batch_s, evaluation_batch_s / len(evaluated[1]), checkpoint_s)


def measure_gpu_memory(trials: Mapping[str, Settings]) -> dict[str, GpuMemory]:
    """What each trial takes of this process's GPU, by trial id; nothing where there is no GPU.

    A trial that does not fit into the GPU needs all of it. After two minutes, no further network is measured.
    """
    if not torch.cuda.is_available():
        return {}
    device = default_device()
    total = torch.cuda.get_device_properties(device).total_memory
    ended = time.monotonic() + _MEASURING_S
    found: dict[Settings, GpuMemory] = {}
    for settings in map(network_of, trials.values()):
        if settings in found or time.monotonic() > ended:
            continue
        found[settings] = GpuMemory(_peak_bytes(settings, device, total), total)
    networks = {trial_id: network_of(settings) for trial_id, settings in trials.items()}
    return {trial_id: found[network] for trial_id, network in networks.items() if network in found}


def _peak_bytes(settings: Settings, device: torch.device, total: int) -> int:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        trial = _trial(settings, device)
        trial.trainer.train_epoch(trial.train_batches, False, 2)
        trial.trainer.test_epoch(trial.validation_batches, False, 1)
        return torch.cuda.max_memory_reserved(device)
    except torch.OutOfMemoryError:
        return total


def _trial(settings: Settings, device: torch.device) -> Trial:
    """On as many random images as a few batches have."""
    assert settings.bs_test is not None
    at_once = evaluated_at_once(device, settings.precision)
    batch_sizes = (settings.bs_train, math.ceil(at_once / settings.bs_test) * settings.bs_test)
    random = np.random.default_rng(0)
    channels, height, width = settings.data.in_size
    one_of_many = random.integers(0, 256, (1, height, width, channels), dtype=np.uint8)
    train, validation, test = (
        ImageSet(
            np.broadcast_to(one_of_many, (count, height, width, channels)),
            random.integers(0, settings.data.classes, count),
        )
        for count in (*(_MOST_BATCHES * size for size in batch_sizes), 1)
    )
    return Trial(settings, Images(train, validation, test, tuple(map(str, range(settings.data.classes)))), device)


def _first(batch: Batch) -> Batch:
    return batch[0][:_SMALL_BATCH], batch[1][:_SMALL_BATCH]


def _share(batch: Batch) -> float:
    """Of a batch, what a small one is."""
    return min(_SMALL_BATCH / len(batch[1]), 1.0)


def _seconds(small: Callable[[], object], many: Callable[[int], object], share: float, within_s: float) -> float:
    """Seconds of a batch.

    Args:
        small: Computes a small batch.
        many: Computes so many whole batches.
        share: Of a whole batch, what the small one is.
        within_s: Take whole batches, as far as there is time for two at least.
    """
    small()  # the first time, kernels are chosen and memory is fetched
    batch_s = _duration(small) / share
    affordable = min(int(within_s / batch_s), _MOST_BATCHES)
    if affordable < 2:
        return batch_s
    count = affordable - 1
    many(1)
    return _duration(lambda: many(count)) / count


def _duration(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
