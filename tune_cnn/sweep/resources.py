"""Cores and GPU fractions per trial."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from tune_cnn import data
from tune_cnn.data.batches import RESIDENT_PART
from tune_cnn.errors import ResourceError
from tune_cnn.sweep.config.load import Experiment

MOST_TRIALS_PER_GPU = 4  # small networks leave most of a GPU idle; more of them compete for its memory
# GPU memory of a process besides its tensors: CUDA's context and kernels.
_GPU_CONTEXT_BYTES = 700 * 2**20


class Node(NamedTuple):
    """Cores and GPUs of one machine of the cluster."""

    cpus: float
    gpus: float


class Request(NamedTuple):
    """Cores and GPU fraction that one trial requests."""

    cpus: int
    gpus: float


class GpuMemory(NamedTuple):
    """Peak bytes of a trial's tensors on a GPU, and total bytes of that GPU."""

    needed: int
    total: int


def requests(
    todo: Mapping[str, Experiment],
    nodes: Sequence[Node],
    trial_count: int,
    memory: Mapping[str, GpuMemory] = {},
) -> dict[str, Request]:
    """The requests of all unfinished trials, by trial id.

    `trial_count` includes finished ones, so that a resumed sweep gives each trial as many threads as before:
    floating-point rounding depends on the number of threads. `memory` is what was measured, by trial id.
    Raises a ResourceError if no node has what a trial requests.
    """
    asked = {}
    for trial_id, experiment in todo.items():
        cpus, gpus = experiment.resources.cpus_per_trial, experiment.resources.gpus_per_trial
        needs = memory.get(trial_id)
        images = data.nbytes(experiment.settings.data)
        if needs is not None and images <= needs.total // RESIDENT_PART:
            needs = needs._replace(needed=needs.needed + images)
        fraction = gpu_fraction(gpus, nodes, len(todo), needs)
        asked[trial_id] = Request(cpu_count(cpus, nodes, trial_count, on_gpu=fraction > 0), fraction)
    check_feasible(asked.values(), nodes)
    return asked


def cpu_count(wanted: int | Literal["auto"], nodes: Sequence[Node], trial_count: int, on_gpu: bool = False) -> int:
    """The number of cores, and threads, that each trial gets.

    `auto` is the largest number with which as many trials run at once as there are trials and cores: two trials at once
    with one thread each are faster than in turn with two. It is 1 on a GPU, where the CPU has nothing more to compute.
    """
    if wanted != "auto":
        return wanted
    cores = [int(node.cpus) for node in nodes]
    at_once = min(trial_count, sum(cores))
    if on_gpu or at_once < 1:
        return 1
    # A trial cannot span machines.
    return next(count for count in range(max(cores), 0, -1) if sum(core // count for core in cores) >= at_once)


def gpu_fraction(
    wanted: float | Literal["auto"], nodes: Sequence[Node], trial_count: int, memory: GpuMemory | None = None
) -> float:
    """The fraction of a GPU that a trial gets.

    `auto` is small enough for all trials to run at once, but at least a quarter, and large enough for the memory that
    the trial needs, if that was measured: up to a whole GPU, even if it needs more. Without a GPU, it is 0.

    Returns:
        0, 1/n or a whole number: a fraction cannot span two GPUs, so any other would leave parts unused.
    """
    if wanted == "auto":
        gpus = sum(int(node.gpus) for node in nodes)
        if gpus == 0:
            return 0.0
        most = MOST_TRIALS_PER_GPU
        if memory is not None:
            most = min(most, memory.total // (memory.needed + _GPU_CONTEXT_BYTES))
        return 1 / max(min(math.ceil(trial_count / gpus), most), 1)
    return fitting(wanted)


def fitting(wanted: float) -> float:
    """A fraction of a GPU, rounded up to 1/n; a whole number as it is."""
    return 1 / math.floor(1 / wanted + 1e-9) if 0 < wanted < 1 else float(wanted)


def check_feasible(requests: Iterable[Request], nodes: Sequence[Node]) -> None:
    """Raise a ResourceError if no node has what a trial requests: Ray would let it wait forever."""
    for cpus, gpus in sorted(set(requests)):
        if any(cpus <= node.cpus and gpus <= node.gpus for node in nodes):
            continue
        have = "; ".join(sorted({f"{node.cpus:g} cores and {node.gpus:g} GPUs" for node in nodes})) or "nothing"
        raise ResourceError(
            f"resources: a trial asks for {cpus} cores and {gpus:g} GPUs, but no node has them (nodes have: {have}); "
            f"ask for less: resources.cpus_per_trial=1, resources.gpus_per_trial=auto"
        )
