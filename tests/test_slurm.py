"""A SLURM job of two nodes, with stand-ins for SLURM's commands; Ray and the sweep are real.

Each node is a namespace, as a container is: with an address, a name and processes of its own. That needs no rights
where users may make user namespaces. All processes of a job end with its outermost one.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sweep_process import TIMEOUT_S, Sweep, environment_of, is_training, processes, wait_until

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "configs" / "cluster" / "slurm.sh"
NAMESPACES = ["unshare", "--net", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
ISOLATED = [*NAMESPACES, "--user", "--map-root-user"]
HOSTS = "127.0.0.1 localhost\n192.168.77.1 node1\n192.168.77.2 node2\n"

# The second node waits for a task of srun; the first runs the batch script, as SLURM does.
SBATCH = """
mount --bind hosts /etc/hosts
hostname node1
ip link set lo up
ip link add net1 type veth peer name net2
ip address add 192.168.77.1/24 dev net1
ip link set net1 up
unshare --net --uts --pid --mount --fork --kill-child --mount-proc bash node2 &
until [[ $(readlink /proc/$!/ns/net) != "$(readlink /proc/$$/ns/net)" ]]; do sleep 0.1; done
ip link set net2 netns $!
exec unshare --pid --mount --fork --kill-child --mount-proc bash "$@"
"""
NODE2 = """
until ip link set net2 up 2> /dev/null; do sleep 0.1; done
ip address add 192.168.77.2/24 dev net2
ip link set lo up
hostname node2
until [[ -e task ]]; do sleep 0.1; done
source ./task
echo $? > code.new && mv code.new code
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
{ export -p; printf '%q ' env SLURM_NODEID=1 "$@"; } > task.new && mv task.new task
SLURM_NODEID=0 "$@"
one=$?
until [[ -e code ]]; do sleep 0.1; done
two=$(<code)
exit $((one > two ? one : two))
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then echo node1; echo node2; else echo "$@" >> scontrol.txt; fi
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("ip") is None
        or subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode != 0,
        reason="needs user namespaces and the command `ip`",
    ),
]


class Job:
    """A job that the script was submitted as, in the folder of its sweep; killed at the end of its `with` block.

    Attributes:
        output: What `sbatch` would write to `slurm-4242.out`.
    """

    def __init__(self, sweep: Sweep, ray_folder: str, *options: str) -> None:
        self._home, self._ray_folder = sweep.home, ray_folder
        for name in ("task", "code"):
            (self._home / name).unlink(missing_ok=True)
        bin_folder = self._home / "bin"
        bin_folder.mkdir(exist_ok=True)
        for path, text in {"hosts": HOSTS, "node2": NODE2, "bin/srun": SRUN, "bin/scontrol": SCONTROL}.items():
            (self._home / path).write_text(text)
            (self._home / path).chmod(0o755)
        overrides = [part for override in sweep.overrides for part in ("--set", override)]
        arguments = ["tiny.yaml", "--out", "results", *overrides, *options]
        with (self._home / "slurm.out").open("wb") as output:
            self._process = subprocess.Popen(
                [*ISOLATED, "bash", "-ec", SBATCH, "sbatch", SCRIPT, *arguments],
                cwd=self._home,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **os.environ,
                    "PATH": f"{bin_folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
                    "PYTHONPATH": str(ROOT),
                    "RAY_TMPDIR": ray_folder,
                    "SLURM_JOB_ID": "4242",
                    "SLURM_JOB_NODELIST": "node[1-2]",
                    "SLURM_JOB_NUM_NODES": "2",
                    "SLURM_CPUS_PER_TASK": "1",
                    "SLURM_SUBMIT_DIR": str(self._home),
                },
            )

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def output(self) -> str:
        return (self._home / "slurm.out").read_text()

    def wait_until(self, happened: Callable[[], object]) -> None:
        """Wait for something that the job should do; it is a failure of the test if it ends before."""
        wait_until(lambda: happened() or self._process.poll() is not None)
        assert self._process.poll() is None, self.output

    def training_processes(self) -> list[int]:
        return [pid for pid in processes() if is_training(pid) and self._ray_folder in environment_of(pid).values()]

    def time_is_up(self) -> None:
        """Signal the batch script alone, as `#SBATCH --signal=B:USR1` does."""
        os.kill(self._find(f"bash {SCRIPT}")[0], signal.SIGUSR1)

    def cancel(self) -> None:
        """Signal the batch script and the tasks of `srun`, as `scancel` does."""
        tasks = self._find(r"\S*python\S* \S*/ray start")
        assert len(tasks) == 2
        for pid in (*tasks, self._find(f"bash {SCRIPT}")[0]):
            os.kill(pid, signal.SIGTERM)

    def _find(self, command: str) -> list[int]:
        own = {pid: process.command for pid, process in processes().items() if process.session == self._process.pid}
        return sorted(pid for pid in own if re.match(command, own[pid]))

    def exit_code(self) -> int:
        return self._process.wait(TIMEOUT_S)


@pytest.fixture
def ray_folder() -> Iterator[str]:
    """Of short name, since the paths of Ray's sockets must be."""
    with tempfile.TemporaryDirectory(prefix="slurm_", ignore_cleanup_errors=True) as folder:
        yield folder


def test_a_job_trains_on_all_of_its_nodes(tmp_path, ray_folder):
    sweep = Sweep.written(tmp_path, "epochs=20")
    with Job(sweep, ray_folder) as job:
        job.wait_until(
            lambda: len(job.training_processes()) == 2
        )  # each node has one core, and each trial asks for one
        assert job.exit_code() == 0, job.output
    sweep.assert_undisturbed()
    assert not (tmp_path / "scontrol.txt").exists(), "requeued, though it was finished"


def test_a_job_whose_time_is_up_queues_itself_again_and_then_goes_on(tmp_path, ray_folder):
    sweep = Sweep.written(tmp_path, "epochs=20")
    with Job(sweep, ray_folder) as job:
        job.wait_until(lambda: sweep.records() and any(0 < epoch < 20 for epoch in sweep.epochs().values()))
        job.time_is_up()
        assert job.exit_code() == 130, job.output
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 4242\n"
    finished, kept = sweep.records(), sweep.epochs()
    assert 0 < len(finished) < 4

    with Job(sweep, ray_folder) as job:
        assert job.exit_code() == 0, job.output
    assert sweep.records().items() >= finished.items(), "a finished trial was trained again"
    trained = [(label, int(epoch)) for label, epoch in re.findall(r"(\S+) +epoch (\d+)/20 ", job.output)]
    assert trained
    assert all(epoch > kept.get(label, 0) for label, epoch in trained), "an epoch was trained again"
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 4242\n"
    sweep.assert_undisturbed()


def test_a_cancelled_job_stops_cleanly_and_is_not_queued_again(tmp_path, ray_folder):
    sweep = Sweep.written(tmp_path, "epochs=1000")
    with Job(sweep, ray_folder, "--storage", "other") as job:
        job.wait_until(lambda: list(tmp_path.glob("other/tiny/trials/*/epoch_*.pt")))
        job.cancel()
        assert job.exit_code() == 130, job.output
    assert not (tmp_path / "scontrol.txt").exists()
