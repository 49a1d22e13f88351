"""A sweep on a cluster: nodes that are lost, that come later, that see nothing, and that are not there."""

import os
import socket
import sys
import time
from collections.abc import Iterator

import pytest
from sweep_process import Sweep, run, training_processes

from tune_cnn.errors import ResourceError
from tune_cnn.sweep import sweep_folder
from tune_cnn.sweep.cluster import ClusterOptions, connected
from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.sweep_folder import SweepFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """A head without cores, and two nodes of one core each."""
    import ray
    from ray.cluster_utils import Cluster

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 * 2**20})
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    yield cluster
    cluster.shutdown()


def raylet_on(node) -> int:
    return node.all_processes["raylet"][0].process.pid


class BlindFolder(Folder):
    """What a folder of one machine looks like from another."""

    def __init__(self, root: str, inner: str = "") -> None:
        super().__init__(root, inner)
        self.seen_by = os.getpid()

    def read(self, name: str) -> bytes | None:
        return super().read(name) if os.getpid() == self.seen_by else None


class BlindSweepFolder(SweepFolder):
    def __init__(self, storage: str, name: str) -> None:
        super().__init__(storage, name)
        self.folder = BlindFolder(self.folder.root, self.folder.inner)


def test_storage_that_a_node_does_not_reach_is_refused(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_folder, "SweepFolder", BlindSweepFolder)
    sweep = Sweep.written(tmp_path)
    ended = run(sweep, "--address", cluster.address)
    assert ended.exit_code == 2
    host = cluster.address.partition(":")[0]  # of the head and both nodes
    assert f"{sweep.folder}: not reached from {host}, {host}, {host}; give a storage that every node" in ended.stderr
    assert sweep.folder.folder.names() == ["sweep.json"]


def test_a_request_that_no_node_can_meet_is_refused_with_numbers(cluster, tmp_path):
    sweep = Sweep.written(tmp_path, "resources.cpus_per_trial=2")
    ended = run(sweep, "--address", cluster.address)
    assert ended.exit_code == 2
    assert "a trial asks for 2 cores and 0 GPUs, but no node has them" in ended.stderr
    assert "1 cores and 0 GPUs" in ended.stderr
    assert sweep.files("*") == []


def test_trials_of_a_lost_node_go_on_elsewhere_and_a_new_node_is_used(cluster, tmp_path):
    sweep = Sweep.written(tmp_path, "epochs=40")  # enough to be left when the new node has come
    first, _ = nodes = cluster.list_all_nodes()[1:]
    with sweep.process("--address", cluster.address) as process:
        process.wait_until(lambda: all(training_processes(raylet_on(node)) for node in nodes))
        process.wait_until(lambda: sum(epoch > 1 for epoch in sweep.epochs().values()) > 1)
        cluster.remove_node(first, allow_graceful=False)
        new = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        process.wait_until(lambda: training_processes(raylet_on(new)))
        assert process.exit_code() == 0
    assert process.stderr.count("its process was lost; retrying") == 1
    assert process.stderr.count(" epoch 1/40 ") == 4, "a trial began again"
    sweep.assert_undisturbed()


def test_a_cluster_can_be_joined_after_a_sweep_on_this_machine(cluster):
    with connected(ClusterOptions(cpus=1), 0) as (nodes, is_new):
        assert (len(nodes), is_new) == (1, True)
    with connected(ClusterOptions(cluster.address), 0) as (nodes, is_new):  # its token is that of the environment
        assert (len(nodes) >= 2, is_new) == (True, False)


def test_an_address_that_is_no_host_name_is_told():
    with pytest.raises(ResourceError, match="no Ray cluster answers"), connected(ClusterOptions("a..b:6379"), 0):
        pass


@pytest.mark.parametrize(("is_served", "answer"), [(False, "no Ray cluster answers"), (True, "no Ray cluster lets")])
def test_an_address_without_a_cluster_is_told_soon(tmp_path, is_served, answer):
    sweep = Sweep.written(tmp_path)
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:  # of something else
        port = server.getsockname()[1]
        if not is_served:
            server.close()
        with sweep.process("--address", f"127.0.0.1:{port}") as process:
            assert process.exit_code() == 2
    assert f"address 127.0.0.1:{port}: {answer}" in process.stderr
    assert "ray start --head" in process.stderr
    assert "Traceback" not in process.stderr
    assert sweep.holder() is None
    assert time.monotonic() - started < 120
