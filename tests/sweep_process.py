"""Small sweeps to disturb: the command in a process of its own, and checks that its results are undisturbed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tune_cnn import data
from tune_cnn.cli import main
from tune_cnn.settings import Settings
from tune_cnn.sweep.config.load import Experiment, load_experiments
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.training.state import state_from_bytes
from tune_cnn.trial import Trial

# Epochs of 0.05 to 0.2 s: short, and long enough to be interrupted.
CONFIG = """
run_name: tiny_K{K}_L{L}
grid:
  filters_per_layer: [[4], [8]]
  layers_per_block: [1, 2]
settings: {seed: 42, bs_train: 1, epochs: 10, early_stopping: null, lr: 3.0e-3, reg: 0, hidden_dims: [10]}
data: {source: shapes, in_size: [3, 8, 8], train_images: 200, test_images: 50}
"""
TIMEOUT_S = 240  # for whatever should take seconds, on a machine that may be busy
_FACTS = ("id", "test_accuracy", "test_loss", "best_epoch", "best_validation_accuracy", "stop_reason", "threads")


@dataclass(frozen=True)
class Sweep:
    """A config file in a folder, and where `tune-cnn sweep tiny.yaml` in that folder leaves its files.

    Attributes:
        home: The folder.
        overrides: Values of `--set`.
    """

    home: Path
    overrides: tuple[str, ...] = ()

    @classmethod
    def written(cls, home: Path, *overrides: str) -> "Sweep":
        (home / "tiny.yaml").write_text(CONFIG)
        return cls(home, overrides)

    @property
    def arguments(self) -> list[str]:
        """The arguments of the command, with absolute paths."""
        arguments = ["sweep", str(self.home / "tiny.yaml"), "--storage", str(self.storage)]
        arguments += ["--out", str(self.results)]
        for override in self.overrides:
            arguments += ["--set", override]
        return arguments

    @property
    def experiments(self) -> list[Experiment]:
        return load_experiments([self.home / "tiny.yaml"], overrides=self.overrides)

    @property
    def folder(self) -> SweepFolder:
        return SweepFolder(str(self.storage), "tiny")

    @property
    def storage(self) -> Path:
        return self.home / "ray_results"

    @property
    def results(self) -> Path:
        return self.home / "results"

    def records(self) -> dict[Path, tuple[int, int]]:
        """The records of finished trials, with their inodes and modification times, which change if rewritten."""
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in self.files("record.json")}

    def files(self, pattern: str) -> list[Path]:
        """The files of trials that match a pattern, such as `epoch_*.pt`."""
        return sorted((self.storage / "tiny").glob(f"trials*/*/{pattern}"))

    def epochs(self) -> dict[str, int]:
        """The number of epochs that each trial has finished, by its label."""
        counts = {path.parent.name: int(path.stem[6:]) for path in self.files("epoch_*.pt")}
        for path in self.files("record.json"):
            counts[path.parent.name] = json.loads(path.read_text())["results"]["num_epochs"]
        return counts

    def holder(self) -> int | None:
        """The id of the process that holds the lock, or held it when it died."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads((self.storage / "tiny" / "lock.json").read_text())["pid"]
        return None

    def process(self, *options: str) -> "SweepProcess":
        """Start the command."""
        return SweepProcess([*self.arguments, *options], self.home)

    def assert_undisturbed(self) -> None:
        """Check that results, facts and best weights of all trials are those of undisturbed trainings."""
        assert_undisturbed(self.experiments, self.folder, self.results)


class SweepProcess:
    """`tune-cnn` in the background, in a session of its own, as a terminal would start it.

    If it still runs at the end of its `with` block, it is killed, and its session with it. If it has ended, Ray's
    processes must notice that by themselves.
    """

    def __init__(self, arguments: Sequence[str], home: Path) -> None:
        self._output = {name: (home / f"{name}.txt") for name in ("stdout", "stderr")}
        with self._output["stdout"].open("wb") as stdout, self._output["stderr"].open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tune_cnn", *arguments],
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                # Background jobs of a shell ignore Ctrl-C, and so would the command if these tests are one.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.pid = self._process.pid

    def __enter__(self) -> "SweepProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            for pid, process in processes().items():
                if process.session == self.pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self._process.wait()

    @property
    def stdout(self) -> str:
        return self._output["stdout"].read_text()

    @property
    def stderr(self) -> str:
        return self._output["stderr"].read_text()

    def wait_until(self, happened: Callable[[], object]) -> None:
        """Wait for something that the sweep should do; fail if it ends first."""

        def ended() -> bool:
            return self._process.poll() is not None

        wait_until(lambda: happened() or ended())
        assert happened(), f"ended with {self._process.returncode}:\n{self.stderr}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command alone, as `kill` does."""
        os.kill(self.pid, number)

    def send_to_group(self, number: signal.Signals) -> None:
        """Send a signal to its whole process group, as a terminal does."""
        os.killpg(self.pid, number)

    def exit_code(self) -> int:
        """Wait until the command ends."""
        return self._process.wait(TIMEOUT_S)


class Ended(NamedTuple):
    """How the command ended."""

    exit_code: int
    stdout: str
    stderr: str


def run(sweep: Sweep, *options: str, meanwhile: Callable[[], object] = lambda: None) -> Ended:
    """Run the command in this process, on the Ray that is there, and meanwhile something else in a thread."""
    with redirect_stdout(StringIO()) as stdout, redirect_stderr(StringIO()) as stderr, ThreadPoolExecutor(1) as thread:
        happening = thread.submit(meanwhile)
        exit_code = main([*sweep.arguments, *options])
        happening.result()
    return Ended(exit_code, stdout.getvalue(), stderr.getvalue())


def wait_until(happened: Callable[[], object]) -> None:
    """Wait for something that will happen soon, or fail."""
    end = time.monotonic() + TIMEOUT_S
    while not happened():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


class _Process(NamedTuple):
    parent: int
    session: int
    command: str


def processes() -> dict[int, _Process]:
    """All processes of this machine, by their ids."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # Fields 4 and 6 of proc_pid_stat(5); the second one may itself contain blanks.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text().replace("\0", " ")
            found[int(folder.name)] = _Process(int(fields[1]), int(fields[3]), command)
    return found


def raylet_of(driver: int) -> int:
    """The id of the raylet, Ray's process that starts all others, on the machine of a sweep's driver."""
    (raylet,) = _raylets_of(driver)
    return raylet


def training_processes(of: int) -> list[int]:
    """The ids of the processes that train for the driver of a sweep, or below the raylet of a node."""
    parents = {of, *_raylets_of(of)}
    return [pid for pid, process in processes().items() if process.parent in parents and is_training(pid)]


def _raylets_of(driver: int) -> list[int]:
    return [pid for pid, p in processes().items() if p.parent == driver and "/raylet " in p.command]


def environment_of(pid: int) -> dict[str, str]:
    """The environment variables that a process started with."""
    lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def is_training(pid: int) -> bool:
    """Whether a process exists and is training."""
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return command.startswith((b"ray::CnnTrainable", b"ray::ResourceTrainable"))
    return False


@cache
def undisturbed(settings: Settings) -> Trial:
    """Train the same trial undisturbed in this process, on one thread as in the sweep."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trial = Trial(settings, data.load(settings.data))
        while trial.stop_reason is None:
            trial.run_epoch()
        return trial
    finally:
        torch.set_num_threads(threads)


def assert_undisturbed(experiments: Sequence[Experiment], folder: SweepFolder, results: Path) -> None:
    """Check that results, facts and best weights of all trials are those of undisturbed trainings."""
    for experiment in experiments:
        expected = undisturbed(experiment.settings)
        exported = json.loads((results / f"{experiment.name}.json").read_text())
        assert exported["results"] == expected.history._asdict()
        facts = {**expected.summary(), "threads": 1}
        assert {key: exported["trial"][key] for key in _FACTS} == {key: facts[key] for key in _FACTS}
        durations = exported["trial"]["epoch_durations_s"]
        assert len(durations) == expected.history.num_epochs, "an epoch was counted twice, or not at all"

        trial = folder.trial(experiment.settings)
        weights = state_from_bytes(trial.folder.read("best.pt") or b"", "best.pt")
        assert weights.keys() == expected.best_weights.keys()
        assert all(torch.equal(weight, expected.best_weights[name]) for name, weight in weights.items())
        left = [name for name in trial.folder.names() if not name.startswith("events.")]
        kept = [f"epoch_{expected.history.num_epochs:04}.pt"] if expected.can_be_continued else []
        assert left == ["best.pt", *kept, "record.json"]
        with folder.trials.on_disk() as shown:
            events = EventAccumulator(str(shown / trial.label)).Reload()
        curve = [(event.step, event.value) for event in events.Scalars("accuracy/validation")]
        assert curve == [(n, pytest.approx(value)) for n, value in enumerate(expected.history.test_acc, start=1)]
