"""What a sweep will take: told from a few steps of each network, as many at a time as will train at a time."""

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import BrokenBarrierError
from typing import Any, NamedTuple

import torch

from tune_cnn import data
from tune_cnn.errors import ResourceError
from tune_cnn.models import cost
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.pace import Pace, measure_gpu_memory, measure_pace, network_of
from tune_cnn.sweep.plan import PlannedExperiment, expected_work
from tune_cnn.sweep.resources import GpuMemory, Node, Request, check_feasible, requests
from tune_cnn.sweep.search_space import Experiment
from tune_cnn.texts import counted, duration

_SPAWN = multiprocessing.get_context("spawn")
_WORKERS_START_S = 300.0
_RAYS_NICENESS = 15  # of its workers, unless told otherwise
_MOST_NETWORKS = 24  # that are timed; further ones lie between them
# What Tune and a checkpoint's way to the disk add to an epoch, and what a trial costs beside its epochs.
_EPOCH_S = 0.03
_TRIAL_S = 0.3
# Ray's start, the images, and in the end the figures and the report, in relation to the start of a process with torch.
_STARTS_OF_A_PROCESS = 6.0


class Job(NamedTuple):
    """A trial that is not finished.

    Attributes:
        settings: The trial's.
        request: What it gets.
        epochs: How many are missing.
    """

    settings: Settings
    request: Request
    epochs: int


class Estimate(NamedTuple):
    """What a sweep takes if no trial stops early.

    Attributes:
        trial_s: Each unfinished trial's own time, by trial id.
        wall_s: From the command to its end.
        gpu_hours: Hours of whole GPUs.
        at_once: How many trials run at the same time.
        node: The machine.
        scaled: How many trials were not timed, but scaled from one of a similar number of multiply-adds.
    """

    trial_s: dict[str, float]
    wall_s: float
    gpu_hours: float
    at_once: int
    node: Node
    scaled: int

    def __str__(self) -> str:
        if not self.trial_s:
            return "time: none, since every trial is done"
        cores = counted(int(self.node.cpus), "core")
        line = (
            f"time: at most {duration(self.wall_s)} on {cores} ({counted(self.at_once, 'trial')} at once), "
            f"{self.gpu_hours:.2g} GPU hours"
        )
        if self.scaled:
            line += f"; {counted(self.scaled, 'trial')} scaled from others by multiply-adds"
        return line


def estimate(
    plan: Sequence[PlannedExperiment], experiments: Sequence[Experiment], node: Node, within_s: float
) -> Estimate:
    """Time a few steps of each network that is to be trained, and add up.

    Args:
        plan: What would run.
        experiments: The same experiments.
        node: The machine on which they would run, which is this one.
        within_s: About how long to measure, after the start of the processes that do it.

    Raises:
        DataError: A folder of images is missing or unfit.
        ResourceError: A trial asks for more than the machine has, or a measuring process died.
    """
    lines = {line.settings.trial_id: line for line in plan if line.shares_with is None}
    todo = {e.settings.trial_id: e for e in experiments if lines[e.settings.trial_id].state != "done"}
    if not todo:
        return Estimate({}, 0.0, 0.0, 0, node, 0)
    memory: dict[str, GpuMemory] = {}
    if node.gpus and any(e.resources.gpus_per_trial == "auto" for e in todo.values()) and torch.cuda.is_available():
        with _workers(1) as pool:
            memory = _result(pool.submit(measure_gpu_memory, {key: e.settings for key, e in todo.items()}))
    asked = requests(todo, [node], len(lines), memory)
    check_feasible(list(asked.values()), [node])
    # In the order in which the runner starts them.
    jobs = {
        trial_id: Job(e.settings, asked[trial_id], lines[trial_id].epochs_left)
        for trial_id, e in sorted(todo.items(), key=lambda item: expected_work(item[1].settings), reverse=True)
    }
    at_once = most_at_once([job.request for job in jobs.values()], node)

    begun = time.monotonic()
    networks = {network_of(job.settings): job.request for job in jobs.values()}
    with _workers(at_once) as pool:
        for ready in [pool.submit(int) for _ in range(at_once)]:
            _result(ready)
        process_s = time.monotonic() - begun
        paces = _paces(pool, networks, at_once, time.monotonic() + within_s)
    counts = {source: data.count_images(source) for source in {job.settings.data for job in jobs.values()}}
    trial_s = {trial_id: _duration(job, paces, counts) for trial_id, job in jobs.items()}
    wall_s = makespan([(job.request, trial_s[trial_id]) for trial_id, job in jobs.items()], node)
    return Estimate(
        trial_s,
        wall_s + _STARTS_OF_A_PROCESS * process_s,
        sum(trial_s[trial_id] * job.request.gpus for trial_id, job in jobs.items()) / 3600,
        at_once,
        node,
        sum(network_of(job.settings) not in paces for job in jobs.values()),
    )


def makespan(jobs: Sequence[tuple[Request, float]], node: Node) -> float:
    """When the last of some trials ends, if each starts in its turn as soon as its cores and GPUs are free.

    Args:
        jobs: What each asks for, no more than the machine has, and how long it takes.
        node: The machine.
    """
    now, running, waiting = 0.0, list[tuple[float, Request]](), list(jobs)
    while waiting or running:
        while waiting and _fits([request for _, request in running], waiting[0][0], node):
            request, seconds = waiting.pop(0)
            running.append((now + seconds, request))
        now = min(end for end, _ in running)
        running = [(end, request) for end, request in running if end > now]
    return now


def most_at_once(asked: Sequence[Request], node: Node) -> int:
    """How many of some trials start at once."""
    started: list[Request] = []
    for request in asked:
        if not _fits(started, request, node):
            break
        started.append(request)
    return len(started)


def _fits(running: Sequence[Request], request: Request, node: Node) -> bool:
    every = [*running, request]
    enough_cores = sum(one.cpus for one in every) <= node.cpus
    return enough_cores and sum(one.gpus for one in every) <= node.gpus + 1e-9


def _duration(job: Job, paces: Mapping[Settings, Pace], counts: Mapping[DataSettings, tuple[int, int, int]]) -> float:
    settings = job.settings
    train, validation, test = counts[settings.data]
    pace = _pace_of(network_of(settings), paces)
    batches = min(settings.batches, train / settings.bs_train)
    epoch_s = batches * pace.train_batch_s + validation * pace.evaluated_image_s + pace.checkpoint_s + _EPOCH_S
    return job.epochs * epoch_s + settings.test_views * test * pace.evaluated_image_s + _TRIAL_S


def _pace_of(network: Settings, paces: Mapping[Settings, Pace]) -> Pace:
    """That of the network, or that of the timed one of the nearest cost and, if there is one, of the same kind."""
    if network in paces:
        return paces[network]
    work = _work(network)
    alike = [other for other in paces if (other.ycn, other.precision) == (network.ycn, network.precision)]
    nearest = min(alike or paces, key=lambda other: abs(math.log(_work(other) / work)))
    ratio = work / _work(nearest)
    pace = paces[nearest]
    batch_ratio = ratio * network.bs_train / nearest.bs_train
    return Pace(pace.train_batch_s * batch_ratio, pace.evaluated_image_s * ratio, pace.checkpoint_s)


def _work(network: Settings) -> int:
    return max(cost(network).multiply_adds, 1)


def _paces(
    pool: ProcessPoolExecutor, networks: Mapping[Settings, Request], at_once: int, ended: float
) -> dict[Settings, Pace]:
    """Time networks, the cheapest first, until the time is over; `ended` is a time of `time.monotonic`."""
    by_cost = sorted(networks, key=_work)
    timed = by_cost[:: math.ceil(len(by_cost) / _MOST_NETWORKS)]
    # With fewer networks than trials at once, each is timed by several processes: none may have the machine alone.
    times = math.ceil(at_once / len(timed))
    each_s = max(ended - time.monotonic(), 0.0) * at_once / (len(timed) * times)
    futures = {
        network: [
            pool.submit(_pace, network, networks[network], each_s, math.inf if network is timed[0] else ended)
            for _ in range(times)
        ]
        for network in timed
    }
    paces = {}
    for network, several in futures.items():
        found = [pace for pace in map(_result, several) if pace is not None]
        if found:
            paces[network] = Pace(*(math.fsum(values) / len(found) for values in zip(*found, strict=True)))
    return paces


_device = torch.device("cpu")  # of a measuring process: its GPU, if there is one


def _workers(count: int) -> ProcessPoolExecutor:
    """Processes that begin their work only when all of them are there."""
    return ProcessPoolExecutor(count, _SPAWN, initializer=_begin, initargs=(_SPAWN.Barrier(count),))


def _begin(barrier: Any) -> None:
    global _device
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the end of the parent this
    os.nice(int(os.environ.get("RAY_worker_niceness", _RAYS_NICENESS)))  # noqa: SIM112 - so does Ray write it
    number = barrier.wait(_WORKERS_START_S)
    if torch.cuda.is_available():
        _device = torch.device(f"cuda:{number % torch.cuda.device_count()}")


def _pace(network: Settings, request: Request, within_s: float, ended: float) -> Pace | None:
    if time.monotonic() > ended:
        return None
    torch.set_num_threads(request.cpus)
    return measure_pace(network, _device if request.gpus else torch.device("cpu"), within_s)


def _result(future: Any) -> Any:
    try:
        return future.result()
    except (BrokenProcessPool, BrokenBarrierError):
        raise ResourceError("a measuring process died, perhaps for want of memory") from None
