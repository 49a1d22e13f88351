"""Estimates a sweep's duration by timing a few steps of each network, as many in parallel as trials will run."""

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import BrokenBarrierError
from typing import Any

import numpy as np
import torch

from tune_cnn import data
from tune_cnn.errors import ResourceError
from tune_cnn.machine import end_with_parent
from tune_cnn.models import cost
from tune_cnn.settings import Settings
from tune_cnn.sweep.pace import Pace, measure_gpu_memory, measure_pace, network_of
from tune_cnn.sweep.plan import PlannedExperiment, expected_work
from tune_cnn.sweep.resources import GpuMemory, Node, Request, requests
from tune_cnn.texts import counted, duration
from tune_cnn.training.devices import default_device

_SPAWN = multiprocessing.get_context("spawn")
_WORKERS_START_S = 300.0
_RAYS_NICENESS = 15  # Ray's default for its workers
_MOST_NETWORKS = 24  # timed at most; the pace of any others is scaled from these
_EPOCH_S = 0.05  # added to an epoch by Tune and a checkpoint
_TRIAL_S = 0.3  # of a trial, besides its epochs
# Time to start Ray, load the images, and write figures and report, in units of the start of a process with torch.
_STARTS_OF_A_PROCESS = 6.0


def estimate(plan: Sequence[PlannedExperiment], node: Node, within_s: float) -> tuple[dict[str, float], str]:
    """Time a few steps of each network that `node`, this machine, will train, and add up the time of all trials.

    Measures for about `within_s`, once the measuring processes have started.

    Returns:
        The seconds that each unfinished trial takes if it does not stop early, by trial id; and a line on the total.

    Raises:
        DataError: A folder of images is missing or unfit.
        ResourceError: A trial asks for more than the machine has, or a measuring process died.
    """
    first = [line for line in plan if line.shares_with is None]
    todo = sorted((e for e in first if e.state != "done"), key=lambda e: expected_work(e.settings), reverse=True)
    trials = {e.settings.trial_id: e for e in todo}  # in the order in which the runner starts them
    if not trials:
        return {}, "time: none, since every trial is done"
    memory: dict[str, GpuMemory] = {}
    try:
        if node.gpus and any(e.resources.gpus_per_trial == "auto" for e in todo) and torch.cuda.is_available():
            with _workers(1) as pool:
                memory = pool.submit(measure_gpu_memory, {key: e.settings for key, e in trials.items()}, {}).result()
        asked = requests(trials, [node], len(first), memory)
        at_once = schedule([(request, 1.0) for request in asked.values()], node)[1]
        begun = time.monotonic()
        networks = {network_of(e.settings): asked[key] for key, e in trials.items()}
        with _workers(at_once) as pool:
            for ready in [pool.submit(int) for _ in range(at_once)]:
                ready.result()
            process_s = time.monotonic() - begun
            paces = _paces(pool, networks, at_once, time.monotonic() + within_s)
    except (BrokenProcessPool, BrokenBarrierError):
        raise ResourceError("a measuring process died, perhaps out of memory") from None
    trial_s = {
        key: trial_duration(e.settings, e.epochs_left, _pace_of(network_of(e.settings), paces))
        for key, e in trials.items()
    }
    wall_s = schedule([(asked[key], seconds) for key, seconds in trial_s.items()], node)[0]
    wall_s += _STARTS_OF_A_PROCESS * process_s
    gpu_hours = sum(trial_s[key] * asked[key].gpus for key in trials) / 3600
    scaled = sum(network_of(e.settings) not in paces for e in trials.values())
    place = f"{counted(int(node.cpus), 'core')} ({counted(at_once, 'trial')} at once), {gpu_hours:.2g} GPU hours"
    others = f"; {counted(scaled, 'trial')} scaled from others by multiply-adds" if scaled else ""
    return trial_s, f"time: at most {duration(wall_s)} on {place}{others}"


def schedule(jobs: Sequence[tuple[Request, float]], node: Node) -> tuple[float, int]:
    """When the last trial ends, and how many start at once, if trials start in order, each as soon as it fits.

    Each of the `jobs` is a trial's request, which the machine can meet, and its duration in seconds.
    """
    now, at_once, running, waiting = 0.0, 0, list[tuple[float, Request]](), list(jobs)
    while waiting or running:
        while waiting:
            every = [waiting[0][0], *(request for _, request in running)]
            if sum(r.cpus for r in every) > node.cpus or sum(r.gpus for r in every) > node.gpus + 1e-9:
                break
            request, seconds = waiting.pop(0)
            running.append((now + seconds, request))
        at_once = at_once or len(running)
        now = min(end for end, _ in running)
        running = [(end, request) for end, request in running if end > now]
    return now, at_once


def trial_duration(settings: Settings, epochs: int, pace: Pace) -> float:
    """Seconds that a trial takes for so many more epochs and its test."""
    train, validation, test = data.count_images(settings.data)
    batches = min(settings.batches, train / settings.bs_train)
    epoch_s = batches * pace.train_batch_s + validation * pace.evaluated_image_s + _EPOCH_S
    return epochs * epoch_s + settings.test_views * test * pace.evaluated_image_s + _TRIAL_S


def _pace_of(network: Settings, paces: Mapping[Settings, Pace]) -> Pace:
    """The measured pace of a network, else that of the most similar timed network, scaled by cost."""
    if network in paces:
        return paces[network]
    alike = [other for other in paces if (other.network, other.precision) == (network.network, network.precision)]
    nearest = min(alike or paces, key=lambda other: abs(math.log(_work(other) / _work(network))))
    ratio = _work(network) / _work(nearest)
    batch_s, image_s = paces[nearest]
    return Pace(batch_s * ratio * network.bs_train / nearest.bs_train, image_s * ratio)


def _work(network: Settings) -> int:
    return max(cost(network).multiply_adds, 1)


def _paces(
    pool: ProcessPoolExecutor, networks: Mapping[Settings, Request], at_once: int, deadline: float
) -> dict[Settings, Pace]:
    """Time networks, the cheapest first, until `time.monotonic` reaches the deadline."""
    by_cost = sorted(networks, key=_work)
    timed = by_cost[:: math.ceil(len(by_cost) / _MOST_NETWORKS)]
    # With fewer networks than parallel trials, each is timed by several processes, so that none has the machine alone.
    copies = math.ceil(at_once / len(timed))
    each_s = max(deadline - time.monotonic(), 0.0) * at_once / (len(timed) * copies)
    deadlines = {network: math.inf if network is timed[0] else deadline for network in timed}
    futures = {n: [pool.submit(_pace, n, networks[n], each_s, deadlines[n]) for _ in range(copies)] for n in timed}
    paces = {n: [pace for future in several if (pace := future.result())] for n, several in futures.items()}
    return {n: Pace(*np.mean(several, axis=0).tolist()) for n, several in paces.items() if several}


def _workers(count: int) -> ProcessPoolExecutor:
    """A pool of processes that begin their work only when all of them have started."""
    return ProcessPoolExecutor(count, _SPAWN, initializer=_begin, initargs=(_SPAWN.Barrier(count),))


def _begin(barrier: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, whose end ends this process
    end_with_parent()
    os.nice(int(os.environ.get("RAY_worker_niceness", _RAYS_NICENESS)))  # noqa: SIM112 - Ray's spelling
    number = barrier.wait(_WORKERS_START_S)
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


def _pace(network: Settings, request: Request, within_s: float, deadline: float) -> Pace | None:
    if time.monotonic() > deadline:
        return None
    torch.set_num_threads(request.cpus)
    return measure_pace(network, default_device() if request.gpus else torch.device("cpu"), within_s)
