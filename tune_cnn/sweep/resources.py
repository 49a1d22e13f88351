"""Cores and GPU fractions per trial."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tune_cnn.errors import ResourceError

MOST_TRIALS_PER_GPU = 4  # small networks leave most of a GPU idle; more of them compete for its memory


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


def gpu_share(wanted: float | Literal["auto"], nodes: Sequence[Node], trial_count: int) -> float:
    """The part of a GPU that each trial gets.

    Args:
        wanted: A fraction, a whole number, or `auto`: as small a part as lets all trials run at once, but no less
            than a quarter; nothing where there is no GPU.
        nodes: The cluster's machines.
        trial_count: How many trials want to run.

    Returns:
        0, 1/n or a whole number: a fraction cannot span two GPUs, so any other would leave parts unused.
    """
    if wanted == "auto":
        gpus = sum(int(node.gpus) for node in nodes)
        if gpus == 0:
            return 0.0
        return 1 / min(max(math.ceil(trial_count / gpus), 1), MOST_TRIALS_PER_GPU)
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
