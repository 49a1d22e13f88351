"""A sweep that is killed, interrupted, starved or damaged ends with the results of one that nothing disturbed."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import torch
from sweep_process import (
    Ended,
    Sweep,
    SweepProcess,
    assert_undisturbed,
    environment_of,
    is_training,
    raylet_of,
    run,
    training_processes,
    wait_until,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tune_cnn.cli import main
from tune_cnn.sweep import sweep_folder
from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trial_folder import TrialFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """A Ray with two cores and one GPU, whatever this machine has; its workers know the classes of this module."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(
        address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False,
        object_store_memory=200 * 2**20,
    )  # fmt: skip
    yield
    ray.shutdown()


# --- killed and interrupted ------------------------------------------------------------------------------------------


def test_a_sweep_killed_ten_times_loses_no_epoch_and_repeats_no_finished_trial(tmp_path):
    sweep = Sweep.written(tmp_path, "epochs=20")
    random = Random(0)
    finished: dict[Path, tuple[int, int]] = {}
    orphans: list[int] = []
    for least_epochs in (0, 0, 0, 0, 2, 8, 20, 32, 44, 54):  # of 80; what is left behind trains on for a moment
        behind = sweep.epochs()
        with sweep.process("--cpus", "2") as process:
            process.wait_until(lambda pid=process.pid: sweep.holder() == pid)  # the lock of the dead is taken over
            if least_epochs:  # at least one more, and some part of the next one
                process.wait_until(lambda pid=process.pid: training_processes(pid))
                goal = max(least_epochs, sum(sweep.epochs().values()) + 1)
                process.wait_until(lambda goal=goal: sum(sweep.epochs().values()) >= goal)
                orphans += training_processes(process.pid)
                time.sleep(random.uniform(0, 0.3))
            else:  # somewhere between the first steps of Ray and the first epoch
                time.sleep(random.uniform(0, 4))
            process.send(signal.SIGKILL)
            assert process.exit_code() == -signal.SIGKILL
        assert sweep.holder() == process.pid
        assert all(sweep.epochs()[label] >= epoch for label, epoch in behind.items())
        finished |= sweep.records()
    assert 0 < len(finished) < 4, "kills came before the first trial ended, and after the last one"

    with sweep.process() as process:
        assert process.exit_code() == 0
    sweep.assert_undisturbed()
    assert {path: written for path, written in sweep.records().items() if path in finished} == finished
    assert sweep.holder() is None
    assert not any(map(is_training, orphans))


def test_ctrl_c_and_sigterm_keep_what_is_finished_and_tell_how_to_go_on(tmp_path):
    sweep = Sweep.written(tmp_path)
    again = f"interrupted; continue with:  tune-cnn {' '.join(sweep.arguments)}\n"

    def assert_all_that_have_begun_are_exported() -> None:
        trials = {e.name: sweep.folder.trial(e.settings) for e in sweep.experiments}
        exported = {path.stem: json.loads(path.read_text())["trial"] for path in sweep.results.glob("*.json")}
        assert exported.keys() == {name for name, trial in trials.items() if sweep.epochs().get(trial.label)}
        finished = {name for name, facts in exported.items() if not facts.get("unfinished")}
        assert finished == {name for name, trial in trials.items() if trial.is_finished()}

    ends: list[Callable[[SweepProcess], None]] = [
        lambda process: process.send_to_group(signal.SIGINT),  # as a terminal does
        lambda process: process.send(signal.SIGTERM),  # as a queue does
        lambda process: process.send_to_group(signal.SIGTERM),  # as timeout(1) does
    ]
    begun = 0
    for end in ends:
        with sweep.process() as process:
            process.wait_until(lambda least=begun + 2: sum(sweep.epochs().values()) > least)
            end(process)
            assert process.exit_code() == 130, process.stderr
        assert again in process.stderr
        assert "Traceback" not in process.stderr
        begun = sum(sweep.epochs().values())
        assert list(sweep.results.glob("*.json"))
        assert_all_that_have_begun_are_exported()

    with sweep.process() as process:
        assert process.exit_code() == 0
    sweep.assert_undisturbed()


def test_sigterm_while_results_are_written_ends_like_ctrl_c(tmp_path):
    sweep = Sweep.written(tmp_path, "epochs=1", "grid.layers_per_block=[1]")
    with sweep.process() as process:
        process.wait_until(lambda: list(sweep.results.glob("*.json")))  # figures and report follow
        process.send(signal.SIGTERM)
        assert process.exit_code() == 130, process.stderr
    assert "\ninterrupted; continue with:  tune-cnn sweep " in process.stderr


def test_a_sweep_whose_ray_is_killed_says_so_and_exports_what_has_begun(tmp_path):
    sweep = Sweep.written(tmp_path, "epochs=200")
    with sweep.process() as process:
        process.wait_until(lambda: len(sweep.files("epoch_*.pt")) > 2)
        os.kill(raylet_of(process.pid), signal.SIGKILL)
        assert process.exit_code() == 2
    assert process.stderr.endswith("run the same command again to continue\n")
    assert "Ray's process raylet was killed" in process.stderr
    assert "raylet)" not in process.stderr  # what Ray itself says, in thirty lines
    assert list(sweep.results.glob("*.json"))


def test_a_trial_whose_process_is_killed_is_retried_from_its_checkpoint(ray_here, tmp_path):
    sweep = Sweep.written(tmp_path, "grid.layers_per_block=[2]")

    def kill_one() -> None:
        wait_until(lambda: sum(epoch > 1 for epoch in sweep.epochs().values()) > 1)
        time.sleep(0.1)  # into the next epoch
        os.kill(training_processes(os.getpid())[0], signal.SIGKILL)

    ended = run(sweep, meanwhile=kill_one)
    assert ended.exit_code == 0
    assert ended.stderr.count("its process was lost; retrying") == 1
    assert ended.stderr.count(" epoch 1/10 ") == 2, "a trial began again"
    sweep.assert_undisturbed()
    for record in sweep.records():  # TensorBoard has each epoch once, those too whose report was lost
        board = EventAccumulator(str(record.parent))
        board.Reload()
        assert [event.step for event in board.Scalars("loss/train")] == list(range(1, 11))


# --- a full disk -----------------------------------------------------------------------------------------------------


class FillingFolder(Folder):
    """On a disk that is full from the fourth epoch on, until somebody makes room."""

    def write(self, name: str, content: bytes) -> None:
        full, room = (Path(self.root) / name for name in ("full", "room"))
        if name == "epoch_0004.pt" and not room.exists():
            full.touch()
        if full.exists() and not room.exists():
            raise self.failed(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "written", name)
        super().write(name, content)


class FillingSweepFolder(SweepFolder):
    def __init__(self, storage: str, name: str) -> None:
        super().__init__(storage, name)
        self.folder, self.trials = (FillingFolder(part.root, part.inner) for part in (self.folder, self.trials))


def assert_full_disk_is_told_and_survived(sweep: Sweep, make_room: Callable[[], object], **happening) -> None:
    ended = run(sweep, **happening)
    assert ended.exit_code == 2
    assert f"{sweep.folder}: the disk is full; make room, then run the same command again" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert sum(sweep.epochs().values()) > 0
    behind = sweep.epochs()
    make_room()
    assert run(sweep).exit_code == 0
    assert all(sweep.epochs()[label] >= epoch for label, epoch in behind.items())
    sweep.assert_undisturbed()


def test_a_disk_that_fills_up_ends_the_sweep_and_it_continues_when_there_is_room(ray_here, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_folder, "SweepFolder", FillingSweepFolder)
    sweep = Sweep.written(tmp_path, "bs_train=10")
    assert_full_disk_is_told_and_survived(sweep, make_room=(sweep.storage / "room").touch)


def test_a_small_file_system_that_fills_up_does_no_harm(ray_here, tmp_path):
    sweep = Sweep.written(tmp_path)
    sweep.storage.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", sweep.storage], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a file system")
    ballast = sweep.storage / "ballast"

    def fill() -> None:
        wait_until(lambda: sweep.files("epoch_0003.pt"))
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    try:
        assert_full_disk_is_told_and_survived(sweep, make_room=ballast.unlink, meanwhile=fill)
    finally:
        subprocess.run(["umount", sweep.storage], check=True)


# --- errors in trials ------------------------------------------------------------------------------------------------


class TroubledTrial(TrialFolder):
    """K4_L1 fails for good, K4_L2 once; for K8_L1 less than a whole GPU is not enough, for K8_L2 nothing is."""

    def save_checkpoint(self, epoch: int, state: dict[str, object]) -> None:
        import ray

        share = ray.get_runtime_context().get_assigned_resources()["GPU"]
        kind, notes = self.label[:5], Path(self.folder.root)
        if epoch == 2:
            with (notes / f"shares_{kind}").open("a") as file:
                file.write(f"{share:g} ")
            if kind == "K4_L1":
                raise RuntimeError("broken for good")
            if kind == "K4_L2" and not (notes / "stumbled").exists():
                (notes / "stumbled").touch()
                raise RuntimeError("broken once")
            if kind == "K8_L2" or (kind == "K8_L1" and share < 1):
                raise torch.OutOfMemoryError("CUDA out of memory")
        super().save_checkpoint(epoch, state)


class TroubledSweepFolder(SweepFolder):
    def trial(self, settings):
        return TroubledTrial(self.trials, settings)


@pytest.fixture(scope="module")
def troubled(ray_here, tmp_path_factory) -> tuple[Sweep, Ended]:
    sweep = Sweep.written(
        tmp_path_factory.mktemp("troubled"), "epochs=4", "bs_train=10", "resources.gpus_per_trial=0.25"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep_folder, "SweepFolder", TroubledSweepFolder)
        return sweep, run(sweep)


def shares(sweep: Sweep, kind: str) -> str:
    return (sweep.storage / f"shares_{kind}").read_text().strip()


def test_an_error_that_comes_twice_at_one_epoch_is_final_and_the_others_go_on(troubled):
    sweep, ended = troubled
    assert ended.exit_code == 1
    assert len(shares(sweep, "K4_L1").split()) == 2
    (line,) = (line for line in ended.stdout.splitlines() if line.startswith("K4_L1"))
    assert "failed: epoch" in line
    assert line.endswith("RuntimeError: broken for good")
    (trace,) = (path.read_text() for path in sweep.files("error.txt") if "K4_L1" in path.parent.name)
    assert trace.partition("\n")[0].endswith("RuntimeError: broken for good")
    assert "Traceback" in trace
    assert len(sweep.records()) == 2


def test_an_error_that_comes_once_leaves_no_trace(troubled):
    sweep, _ = troubled
    assert len(shares(sweep, "K4_L2").split()) == 2
    stumbled = [e for e in sweep.experiments if e.settings.label == "K4_L2"]
    assert_undisturbed(stumbled, sweep.folder, sweep.results)


def test_a_trial_without_enough_gpu_memory_gets_twice_the_share_up_to_a_whole_gpu(troubled):
    sweep, ended = troubled
    assert shares(sweep, "K8_L1") == "0.25 0.5 1"
    modest = [e for e in sweep.experiments if e.settings.label == "K8_L1"]
    assert_undisturbed(modest, sweep.folder, sweep.results)

    assert shares(sweep, "K8_L2") == "0.25 0.5 1"
    (line,) = (line for line in ended.stdout.splitlines() if line.startswith("K8_L2"))
    assert line.endswith("OutOfMemoryError: CUDA out of memory")


# --- another grid ----------------------------------------------------------------------------------------------------


def test_a_grid_with_one_more_k_and_one_more_l_runs_what_is_new(ray_here, tmp_path):
    quick = ("epochs=2", "bs_train=10")
    sweep = Sweep.written(tmp_path, *quick, "grid.layers_per_block=[1]")
    assert run(sweep).exit_code == 0
    before = sweep.records()
    grown = Sweep(tmp_path, (*quick, "grid.layers_per_block=[1, 2]", "grid.filters_per_layer=[[4], [6], [8]]"))
    ended = run(grown)
    assert ended.exit_code == 0
    assert "6 experiments, 6 trials: 2 done, 0 to continue, 4 new" in ended.stderr
    after = grown.records()
    labels = sorted(path.parent.name[:5] for path in after)
    assert labels == ["K4_L1", "K4_L2", "K6_L1", "K6_L2", "K8_L1", "K8_L2"]
    assert before.items() < after.items()
    grown.assert_undisturbed()


# --- others ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[tuple[Sweep, SweepProcess]]:
    """A sweep that runs for as long as the tests want."""
    sweep = Sweep.written(tmp_path_factory.mktemp("running"), "epochs=100000", "early_stopping=99999")
    with sweep.process() as process:
        process.wait_until(lambda: sweep.files("epoch_*.pt"))
        yield sweep, process


def test_a_second_sweep_on_the_same_folder_is_refused(running, capsys):
    sweep, process = running
    assert main(Sweep(sweep.home, ("epochs=1",)).arguments) == 2
    assert f"process {process.pid} on {socket.gethostname()} is running this sweep" in capsys.readouterr().err
    behind = sum(sweep.epochs().values())
    process.wait_until(lambda: sum(sweep.epochs().values()) > behind + 1)
    assert sweep.holder() == process.pid


CLIENT = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print("joined", ray.get(ray.remote(num_cpus=0)(lambda: 6 * 7).remote()))
"""


def test_a_stranger_cannot_join_the_ray_of_a_sweep(running, tmp_path):
    _, process = running
    raylet = raylet_of(process.pid)
    token = environment_of(raylet)["RAY_AUTH_TOKEN"]
    assert token != os.environ["RAY_AUTH_TOKEN"]  # with which the command was started
    command = Path(f"/proc/{raylet}/cmdline").read_text().split("\0")
    (address,) = (part.partition("=")[2] for part in command if part.startswith("--gcs-address="))
    # Without patience, and without a token in the home folder.
    plain = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    plain |= {"RAY_NUM_REDIS_GET_RETRIES": "3", "HOME": str(tmp_path)}
    tries = {
        "right": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
        "wrong": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        "none": {"RAY_AUTH_MODE": "disabled"},
    }
    clients = {
        name: subprocess.Popen(
            [sys.executable, "-c", CLIENT, address],
            env=plain | auth, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for name, auth in tries.items()
    }  # fmt: skip
    answers = {name: (*client.communicate(timeout=240), client.returncode) for name, client in clients.items()}
    assert answers["right"][0] == "joined 42\n", answers["right"]
    for stranger in ("wrong", "none"):
        stdout, stderr, code = answers[stranger]
        assert (stdout, code) == ("", 1)
        assert "Failed to connect to Ray cluster" in stderr
        assert "UNAUTHENTICATED" in stderr.upper()
