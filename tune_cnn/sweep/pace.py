"""Training speed and GPU memory of a trial's network on this machine, measured in a few steps."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from tune_cnn import models
from tune_cnn.data import Images, ImageSet
from tune_cnn.data.batches import evaluated_at_once
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.resources import GpuMemory
from tune_cnn.training.devices import default_device, is_out_of_memory
from tune_cnn.training.loop import Batch
from tune_cnn.trial import Trial

_MOST_BATCHES = 100
_SMALL_BATCH = 6  # images; enough to estimate the time per image where a whole batch takes too long
_GPU_MEASURING_S = 120.0


class Pace(NamedTuple):
    """Seconds per training batch, and per image of the validation or test set."""

    train_batch_s: float
    evaluated_image_s: float


def network_of(settings: Settings) -> Settings:
    """Settings as a key for timing: those that do not affect the time of a batch are set to fixed values."""
    shapes = DataSettings("shapes", in_size=settings.data.in_size, classes=settings.data.classes)
    neutral = replace(settings, seed=0, lr=1e-3, reg=1e-3, epochs=1000, batches=1000, early_stopping=None, data=shapes)
    # Compiling a network would take longer than the timing; the times without it are an upper bound.
    return replace(neutral, compile=False)


def measure_pace(settings: Settings, device: torch.device, within_s: float) -> Pace:
    """Time a few steps of a trial for about `within_s`, on random images and with the threads that PyTorch has now."""
    trial = _trial(settings, device)
    trainer, train, validation = trial.trainer, trial.train_batches, trial.validation_batches
    evaluated: Batch = next(iter(validation))
    batch_s = _seconds(
        trainer.train_batch, lambda n: trainer.train_epoch(train, False, n), next(iter(train)), within_s * 2 / 3
    )
    evaluation_s = _seconds(
        trainer.test_batch, lambda n: trainer.test_epoch(validation, False, n), evaluated, within_s / 3
    )
    return Pace(batch_s, evaluation_s / len(evaluated[1]))


def _seconds(one: Callable[[Batch], object], many: Callable[[int], object], batch: Batch, within_s: float) -> float:
    """Seconds per batch, measured on as many full batches as there is time for, else scaled up from a small one."""

    def timed(run: Callable[[], object]) -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    small = batch[0][:_SMALL_BATCH], batch[1][:_SMALL_BATCH]
    one(small)  # warm-up: kernels are selected and memory is allocated
    # The fastest of three: on a busy machine, a delayed step would be extrapolated to hours.
    batch_s = min(timed(lambda: one(small)) for _ in range(3)) * len(batch[1]) / len(small[1])
    count = min(int(within_s / batch_s), _MOST_BATCHES) - 1
    if count < 1:
        return batch_s
    many(1)
    return timed(lambda: many(count)) / count


def measure_gpu_memory(trials: Mapping[str, Settings], networks: Mapping[str, dict[str, str]]) -> dict[str, GpuMemory]:
    """GPU memory that each trial needs, by trial id, measured on this process's GPU; empty without a GPU.

    A trial that does not fit counts as needing the whole GPU. After two minutes, no further network is measured.
    `networks` are the `models.sources` of the trials.
    """
    models.adopt(networks)
    measured: dict[Settings, GpuMemory] = {}
    ended, device = time.monotonic() + _GPU_MEASURING_S, default_device()
    for settings in dict.fromkeys(map(network_of, trials.values())):
        if device.type == "cuda" and time.monotonic() < ended:
            total = torch.cuda.get_device_properties(device).total_memory
            try:
                measured[settings] = GpuMemory(_reserved(settings, device), total)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                measured[settings] = GpuMemory(total, total)
    return {key: measured[network] for key, s in trials.items() if (network := network_of(s)) in measured}


def _reserved(settings: Settings, device: torch.device) -> int:
    """Peak bytes of GPU memory that PyTorch reserves for a few steps of a trial; earlier ones must have been freed."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    trial = _trial(settings, device)
    trial.trainer.train_epoch(trial.train_batches, False, 2)
    trial.trainer.test_epoch(trial.validation_batches, False, 1)
    return torch.cuda.max_memory_reserved(device)


def _trial(settings: Settings, device: torch.device) -> Trial:
    """A trial on random data: one image, repeated without using memory, for `_MOST_BATCHES` batches."""
    assert settings.bs_test is not None
    evaluated = evaluated_at_once(device, settings.precision) + settings.bs_test
    random = np.random.default_rng(0)
    channels, height, width = settings.data.in_size
    image = random.integers(0, 256, (1, height, width, channels), dtype=np.uint8)
    train, validation, test = (
        ImageSet(np.broadcast_to(image, (n, *image.shape[1:])), random.integers(0, settings.data.classes, n))
        for n in (_MOST_BATCHES * settings.bs_train, _MOST_BATCHES * evaluated, 1)
    )
    return Trial(settings, Images(train, validation, test, tuple(map(str, range(settings.data.classes)))), device)
