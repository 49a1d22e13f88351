"""How much of the machines each trial gets, and what is refused before Ray would wait for ever."""

import re

import pytest

from tune_cnn.errors import ResourceError
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.config.file_model import Resources
from tune_cnn.sweep.config.load import Experiment
from tune_cnn.sweep.resources import (
    MOST_TRIALS_PER_GPU,
    GpuMemory,
    Node,
    Request,
    check_feasible,
    cpu_count,
    gpu_fraction,
    requests,
)


def machines(gpus: int) -> list[Node]:
    """GPUs spread over machines of at most four."""
    return [Node(16, min(4, gpus - done)) for done in range(0, gpus, 4)] or [Node(16, 0)]


@pytest.mark.parametrize("trials", [1, 20])
def test_without_a_gpu_auto_asks_for_none(trials):
    assert gpu_fraction("auto", machines(0), trials) == 0


@pytest.mark.parametrize("gpus", [1, 2, 8])
@pytest.mark.parametrize("trials", range(1, 41))
def test_auto_is_the_largest_part_that_lets_all_trials_run_at_once_but_a_quarter_at_least(gpus, trials):
    share = gpu_fraction("auto", machines(gpus), trials)
    per_gpu = round(1 / share)
    assert share == 1 / per_gpu
    assert 1 <= per_gpu <= MOST_TRIALS_PER_GPU == 4
    assert per_gpu * gpus >= trials or per_gpu == MOST_TRIALS_PER_GPU
    assert per_gpu == 1 or (per_gpu - 1) * gpus < trials  # a larger part would not do


@pytest.mark.parametrize(
    ("wanted", "share"),
    [(0, 0), (0.75, 1), (0.51, 1), (0.5, 0.5), (0.34, 0.5), (0.3, 1 / 3), (1 / 3, 1 / 3), (0.1, 0.1), (1, 1), (2, 2)],
)
def test_a_fraction_is_rounded_up_to_one_that_divides_a_gpu(wanted, share):
    assert gpu_fraction(wanted, machines(2), 14) == share


@pytest.mark.parametrize(
    ("gigabytes", "trials", "share"),
    [
        (1.0, 20, 1 / 4),  # more than four compete
        (1.0, 3, 1 / 3),
        (5.0, 20, 1 / 4),
        (5.5, 20, 1 / 3),  # 24 GB for each trial's 5.5 and CUDA's own 0.7
        (9.0, 20, 1 / 2),
        (9.0, 1, 1.0),
        (12.0, 20, 1.0),
        (30.0, 20, 1.0),  # it does not fit at all, which the training will say
    ],
)
def test_auto_leaves_memory_enough(gigabytes, trials, share):
    memory = GpuMemory(int(gigabytes * 2**30), 24 * 2**30)
    assert gpu_fraction("auto", machines(1), trials, memory) == share
    assert gpu_fraction(0.1, machines(1), trials, memory) == 0.1  # who writes a number knows


@pytest.mark.parametrize(
    ("cores", "trials", "threads"),
    [
        ([2], 14, 1), ([2], 2, 1), ([2], 1, 2), ([16], 5, 3), ([16], 16, 1), ([16], 1, 16),
        ([3, 3], 2, 3), ([3, 3], 3, 1), ([4, 2], 3, 2), ([4, 2], 1, 4), ([0], 3, 1),
    ],
)  # fmt: skip
def test_auto_gives_as_many_cores_as_lets_all_trials_run_at_once(cores, trials, threads):
    nodes = [Node(count, 0) for count in cores]
    assert cpu_count("auto", nodes, trials) == threads
    assert cpu_count("auto", nodes, trials, on_gpu=True) == 1
    assert cpu_count(7, nodes, trials) == 7


def test_a_resumed_sweep_gives_each_trial_as_many_threads_as_before():
    experiment = Experiment("a", Settings(), Resources(cpus_per_trial="auto"))
    assert requests({"a": experiment}, [Node(8, 0)], trial_count=4) == {"a": Request(2, 0.0)}


def test_each_trial_gets_the_share_that_it_needs():
    todo = {name: Experiment(name, Settings(), Resources()) for name in ("small", "large", "unknown")}
    memory = {"small": GpuMemory(2**30, 16 * 2**30), "large": GpuMemory(15 * 2**30, 16 * 2**30)}
    found = requests(todo, machines(1), 3, memory)
    assert found == {"small": Request(1, 1 / 3), "large": Request(1, 1.0), "unknown": Request(1, 1 / 3)}


def test_images_count_unless_they_are_so_many_that_they_stay_in_main_memory():
    memory = dict.fromkeys("abcd", GpuMemory(4 * 2**30, 20 * 2**30))
    for images, share in ((1_000, 1 / 4), (90_000, 1 / 3), (10**6, 1 / 4)):  # 0.01, 1 and 11 GiB
        settings = Settings(data=DataSettings("shapes", in_size=(3, 64, 64), train_images=images))
        found = requests({name: Experiment(name, settings, Resources()) for name in "abcd"}, machines(1), 4, memory)
        assert {request.gpus for request in found.values()} == {share}


@pytest.mark.parametrize(
    ("requests", "nodes"),
    [
        ([], [Node(2, 0)]),
        ([Request(2, 0)], [Node(2, 0)]),
        ([Request(1, 0.25), Request(8, 0)], [Node(8, 0), Node(1, 1)]),
    ],
)
def test_what_some_node_has_is_feasible(requests, nodes):
    check_feasible(requests, nodes)


@pytest.mark.parametrize(
    ("request_", "nodes", "message"),
    [
        (
            Request(1, 3.0),
            [Node(4, 2), Node(4, 2)],
            "resources: a trial asks for 1 cores and 3 GPUs, but no node has them (nodes have: 4 cores and 2 GPUs); "
            "ask for less: resources.cpus_per_trial=1, resources.gpus_per_trial=auto",
        ),
        (
            Request(1, 0.5),
            [Node(2, 0)],
            "resources: a trial asks for 1 cores and 0.5 GPUs, but no node has them (nodes have: 2 cores and 0 GPUs); "
            "ask for less: resources.cpus_per_trial=1, resources.gpus_per_trial=auto",
        ),
        (
            Request(8, 0.0),
            [Node(2, 0), Node(4, 0)],
            "resources: a trial asks for 8 cores and 0 GPUs, but no node has them (nodes have: 2 cores and 0 GPUs; "
            "4 cores and 0 GPUs); ask for less: resources.cpus_per_trial=1, resources.gpus_per_trial=auto",
        ),
        (  # each half is there, but on no one node
            Request(2, 1.0),
            [Node(8, 0), Node(1, 1)],
            "resources: a trial asks for 2 cores and 1 GPUs, but no node has them (nodes have: 1 cores and 1 GPUs; "
            "8 cores and 0 GPUs); ask for less: resources.cpus_per_trial=1, resources.gpus_per_trial=auto",
        ),
        (
            Request(1, 0.0),
            [],
            "resources: a trial asks for 1 cores and 0 GPUs, but no node has them (nodes have: nothing); "
            "ask for less: resources.cpus_per_trial=1, resources.gpus_per_trial=auto",
        ),
    ],
)
def test_what_no_node_has_is_refused_with_numbers_and_remedy(request_, nodes, message):
    with pytest.raises(ResourceError, match=f"^{re.escape(message)}$"):
        check_feasible([Request(1, 0.0)] * bool(nodes) + [request_], nodes)
