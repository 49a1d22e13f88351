"""Ray for a sweep: started on this machine, or a running cluster to join."""

import logging
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import tune_cnn
from tune_cnn.errors import ResourceError, StorageError
from tune_cnn.files import deleted_at_end
from tune_cnn.machine import cores
from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.ray_errors import logs_folder, why_no_start
from tune_cnn.sweep.resources import Node
from tune_cnn.waiting import waiting

_OBJECT_STORE_SLACK = 256 * 2**20
_PROBE_S = 10
_ANSWER_S = 180  # on a busy machine, a worker takes minutes to start: Ray runs it at niceness 15 of 19
_MARKER = "reached.txt"


class ClusterOptions(NamedTuple):
    """Which Ray to use."""

    address: str | None = None  # of a running cluster: `auto`, or host:port; None: start Ray on this machine
    cpus: int | None = None  # cores for a Ray that is started here; None: all that this process may use
    gpus: int | None = None  # GPUs for it; None: all


@contextmanager
def connected(options: ClusterOptions, data_bytes: int) -> Iterator[tuple[list[Node], bool]]:
    """Start or join Ray, and leave it at the end; if this process is already connected to Ray, use that and stay.

    Yields the nodes that are alive, and whether Ray has just been started; raises a ResourceError if that is not
    possible. `data_bytes` is the size of the images to share through the object store.
    """
    if os.environ.get("RAY_TMPDIR"):
        os.environ["RAY_TMPDIR"] = os.path.abspath(os.environ["RAY_TMPDIR"])  # Ray's processes run elsewhere
    with ExitStack() as stack:
        with waiting("starting Ray" if options.address is None else "joining Ray", at_once=True):
            import ray
            import ray._private.worker

            ray._private.worker.listen_error_messages = lambda *_: None  # the watcher reports errors, in one line each
            ray._private.utils.set_sigterm_handler = lambda _: None  # the sweep has its own, and Ray's would outlast it
            is_own = not ray.is_initialized()
            is_new = is_own and options.address is None
            if is_own and options.address is not None:
                _join(options.address)
            elif is_own:
                # At the end, for a cluster that this process joins later.
                stack.callback(_set_token, os.environ.get("RAY_AUTH_MODE"), os.environ.get("RAY_AUTH_TOKEN"))
                _start(options, data_bytes)
        if is_new:
            stack.enter_context(deleted_at_end(logs_folder().parent))
        if is_own:
            stack.callback(ray.shutdown)
        else:
            stack.enter_context(_freed_if_interrupted())
        resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield [Node(total.get("CPU", 0.0), total.get("GPU", 0.0)) for total in resources], is_new


@contextmanager
def _freed_if_interrupted() -> Iterator[None]:
    """Stop the workers of an interrupted run, which Tune leaves behind in a Ray that goes on, such as a notebook's.

    They are found by their placement groups: those that this process has created in the meantime.
    """
    import ray
    from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

    def groups() -> set[str]:
        return {group for group in placement_group_table() if group.endswith(ray.get_runtime_context().get_job_id())}

    earlier = groups()
    try:
        yield
    except BaseException:
        for group in groups() - earlier:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group))))
        raise


def _start(options: ClusterOptions, data_bytes: int) -> None:
    import ray
    import ray._private.services

    # Ray's daemons listen on every interface: a secret token keeps everyone else out. By default, Ray takes one from
    # the home folder, where others may read it.
    _set_token("token", secrets.token_hex(32))
    if sys.platform == "linux":  # where the kernel ends Ray's daemons when this process ends
        # A signal to the process group, such as timeout(1) sends, must not end the daemons that this process needs.
        ray._private.services.ConsolePopen = partial(subprocess.Popen, process_group=0)
    try:
        # `local`: otherwise ray.init would try to join the last Ray that ran here, even a dead one.
        ray.init(
            address="local",
            num_cpus=options.cpus or cores(),
            num_gpus=options.gpus,
            object_store_memory=data_bytes + _OBJECT_STORE_SLACK,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            job_config=_job_config(),
            # Otherwise ray.init ignores Ctrl-C while it waits for the first worker: forever, if that cannot start.
            _system_config={"prestart_worker_first_driver": False},
        )
    except Exception as error:  # Ray raises nearly every class of error
        ray.shutdown()
        raise ResourceError(why_no_start(error, options.gpus, data_bytes)) from error


def _set_token(mode: str | None, token: str | None) -> None:
    import ray

    for name, value in (("RAY_AUTH_MODE", mode), ("RAY_AUTH_TOKEN", token)):
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    raylet: Any = ray._raylet
    raylet.Config.initialize("")  # reads the environment again, as when Ray is imported
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _join(address: str) -> None:
    import ray

    host, _, port = address.rpartition(":")
    if port.isdecimal() and "://" not in address:  # probed first, as Ray takes long to give up
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
        except (OSError, OverflowError, UnicodeError) as error:
            raise ResourceError(
                f"address {address}: no Ray cluster answers ({error}); start one with: ray start --head"
            ) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, job_config=_job_config())
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).partition(". ")[0]
        raise ResourceError(
            f"address {address}: no Ray cluster lets this process in ({reason}); set RAY_AUTH_MODE=token "
            f"and RAY_AUTH_TOKEN as on its machines, or start one with: ray start --head"
        ) from error


def _job_config() -> Any:
    """Keep the working folder off the workers' `sys.path`, where a `random.py` in it would shadow Python's."""
    from ray.job_config import JobConfig

    class OwnPathOnly(JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:
            return True  # otherwise, Ray puts the working folder and the script's first on `sys.path`

    try:
        version("tune_cnn")
    except PackageNotFoundError:  # run from a clone: workers would not find the package
        return OwnPathOnly(_py_driver_sys_path=[str(Path(tune_cnn.__file__).parent.parent)])
    return OwnPathOnly()


def own_node(options: ClusterOptions) -> Node | None:
    """Cores and GPUs of the Ray that will be started here; None if a running Ray will be used."""
    if options.address is not None or ("ray" in sys.modules and sys.modules["ray"].is_initialized()):
        return None
    import torch

    gpus = torch.cuda.device_count() if options.gpus is None else options.gpus
    return Node(cores() if options.cpus is None else options.cpus, gpus)


def check_reachable(folder: Folder) -> None:
    """Raise a StorageError if a node of the cluster does not see what this machine writes to a folder."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    content = secrets.token_hex(8).encode()
    folder.write(_MARKER, content)
    read = ray.remote(num_cpus=0, max_retries=0)(lambda folder: folder.read(_MARKER))
    blind = []
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        affinities = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        answers = [read.options(scheduling_strategy=affinity).remote(folder) for affinity in affinities]
        for node, answer in zip(nodes, answers, strict=True):
            try:
                if ray.get(answer, timeout=_ANSWER_S) != content:
                    blind.append(node["NodeManagerAddress"])
            except Exception as error:  # of that node: no permission, tune_cnn not installed, no answer, ...
                reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
                blind.append(f"{node['NodeManagerAddress']} ({reason})")
    finally:
        folder.delete(_MARKER)
    if blind:
        raise StorageError(
            f"{folder}: not reached from {', '.join(blind)}; give a storage that every node sees, "
            f"a shared folder or s3://bucket/path"
        )
