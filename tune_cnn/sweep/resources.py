"""Cores and GPU fractions per trial."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from tune_cnn import data
from tune_cnn.data.batches import RESIDENT_PART
from tune_cnn.errors import ResourceError
from tune_cnn.sweep.config.load import Experiment

MOST_TRIALS_PER_GPU = 4  # small networks leave most of a GPU idle; more of them compete for its memory
# What each process that uses a GPU takes of its memory beside its tensors: CUDA's context and its kernels.
_GPU_CONTEXT_BYTES = 700 * 2**20


class Node(NamedTuple):
    """What one machine of the cluster has."""

    cpus: float
    gpus: float


class Request(NamedTuple):
    """What one trial asks for."""

    cpus: int
    gpus: float

    def with_twice_the_gpu(self) -> "Request":
        """Twice the part of a GPU, or a whole one."""
        return Request(self.cpus, _fitting(min(2 * self.gpus, 1.0)))


class GpuMemory(NamedTuple):
    """Bytes that the tensors of a trial take on a GPU at their most, and bytes that the GPU has."""

    needed: int
    total: int


def requests(
    todo: Mapping[str, Experiment],
    nodes: Sequence[Node],
    trial_count: int,
    memory: Mapping[str, GpuMemory] = {},
) -> dict[str, Request]:
    """What each trial that is not finished asks for, by trial id.

    Args:
        todo: These trials.
        nodes: The machines.
        trial_count: Number of trials in the sweep, finished ones included, so that a resumed sweep gives each trial
            as many threads as before: floating-point rounding depends on the number of threads.
        memory: What was measured.
    """
    found = {}
    for trial_id, experiment in todo.items():
        cpus, gpus = experiment.resources.cpus_per_trial, experiment.resources.gpus_per_trial
        needs = memory.get(trial_id)
        images = data.nbytes(experiment.settings.data)
        if needs is not None and images <= needs.total // RESIDENT_PART:
            needs = needs._replace(needed=needs.needed + images)
        fraction = gpu_fraction(gpus, nodes, len(todo), needs)
        found[trial_id] = Request(cpu_count(cpus, nodes, trial_count, on_gpu=fraction > 0), fraction)
    return found


def cpu_count(wanted: int | Literal["auto"], nodes: Sequence[Node], trial_count: int, on_gpu: bool = False) -> int:
    """The cores, and threads, that each trial gets.

    `auto` is the most with which as many trials run at once as there are trials and cores, since two trials with a
    thread each are faster than one after the other with two; and one on a GPU, where there is nothing more to compute.
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
    """The part of a GPU that a trial gets.

    `auto` is as small a part as lets all trials run at once, but no less than a quarter, and with memory enough, if
    what the trial needs was measured; one that needs more than a GPU has gets a whole one. Nothing without a GPU.

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
    return _fitting(wanted)


def _fitting(wanted: float) -> float:
    return 1 / math.floor(1 / wanted + 1e-9) if 0 < wanted < 1 else float(wanted)


def check_feasible(requests: Sequence[Request], nodes: Sequence[Node]) -> None:
    """Make sure that some node can run each trial.

    Raises:
        ResourceError: No node has what a trial asks for; Ray would let it wait for ever.
    """
    for cpus, gpus in sorted(set(requests)):
        if any(cpus <= node.cpus and gpus <= node.gpus for node in nodes):
            continue
        have = "; ".join(sorted({f"{node.cpus:g} cores and {node.gpus:g} GPUs" for node in nodes})) or "nothing"
        remedy = "ask for fewer cores: resources.cpus_per_trial=1"
        if gpus > max((node.gpus for node in nodes), default=0):
            remedy = "ask for what there is: resources.gpus_per_trial=auto"
        raise ResourceError(
            f"resources: a trial asks for {cpus} cores and {gpus:g} GPUs, but no node has them (nodes have: {have}); "
            f"{remedy}"
        )
