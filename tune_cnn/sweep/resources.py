"""Cores and GPU fractions per trial."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from tune_cnn import data
from tune_cnn.errors import ResourceError
from tune_cnn.sweep.config.search_space import Experiment

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
    """What each trial of a sweep asks for.

    Args:
        todo: The trials that are not finished, by trial id.
        nodes: The machines.
        trial_count: Number of trials in the sweep, finished ones included, so that a resumed sweep gives each trial
            as many threads as before: floating-point rounding depends on the number of threads.
        memory: What was measured, by trial id.
    """
    found = {}
    for trial_id, experiment in todo.items():
        wanted = experiment.resources
        needs = memory.get(trial_id)
        if needs is not None:  # and the images, which lie there too
            needs = needs._replace(needed=needs.needed + data.nbytes(experiment.settings.data))
        gpus = gpu_share(wanted.gpus_per_trial, nodes, len(todo), needs)
        found[trial_id] = Request(cpu_count(wanted.cpus_per_trial, nodes, trial_count, on_gpu=gpus > 0), gpus)
    return found


def cpu_count(wanted: int | Literal["auto"], nodes: Sequence[Node], trial_count: int, on_gpu: bool = False) -> int:
    """The cores, and threads, that each trial gets.

    Args:
        wanted: A number, or `auto`: the most with which as many trials run at once as there are trials and cores,
            since two trials with a thread each are faster than one after the other with two. One for a trial on a
            GPU, which has nothing more to compute.
        nodes: The machines.
        trial_count: How many trials there are.
        on_gpu: Whether they compute on GPUs.
    """
    if wanted != "auto":
        return wanted
    cores = [int(node.cpus) for node in nodes]
    at_once = min(trial_count, sum(cores))
    if on_gpu or at_once < 1:
        return 1
    # A trial cannot span machines.
    return next(count for count in range(max(cores), 0, -1) if sum(core // count for core in cores) >= at_once)


def gpu_share(
    wanted: float | Literal["auto"], nodes: Sequence[Node], trial_count: int, memory: GpuMemory | None = None
) -> float:
    """The part of a GPU that a trial gets.

    Args:
        wanted: A fraction, a whole number, or `auto`: as small a part as lets all trials run at once, but no less
            than a quarter, and with memory enough; nothing where there is no GPU.
        nodes: The cluster's machines.
        trial_count: How many trials want to run.
        memory: What the trial needs, if it was measured. One that needs more than a GPU has gets a whole one.

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


def _fitting(share: float) -> float:
    return 1 / math.floor(1 / share + 1e-9) if 0 < share < 1 else float(share)


def check_feasible(requests: Sequence[Request], nodes: Sequence[Node]) -> None:
    """Make sure that some node can run each trial.

    Raises:
        ResourceError: No node has what a trial asks for; Ray would let it wait for ever.
    """
    for cpus, gpus in sorted(set(requests)):
        if any(cpus <= node.cpus and gpus <= node.gpus for node in nodes):
            continue
        have = "; ".join(sorted({f"{node.cpus:g} cores and {node.gpus:g} GPUs" for node in nodes})) or "nothing"
        if gpus > max((node.gpus for node in nodes), default=0):
            remedy = "ask for what there is: --set resources.gpus_per_trial=auto"
        else:
            remedy = "ask for fewer cores: --set resources.cpus_per_trial=1"
        raise ResourceError(
            f"resources: a trial asks for {cpus} cores and {gpus:g} GPUs, but no node has them (nodes have: {have}); "
            + remedy
        )
