"""Power that fails at any moment, and files that it damaged: the same command ends with undisturbed results."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from sweep_process import assert_undisturbed
from tiny_sweep import CONFIG, trainable

from tune_cnn import data
from tune_cnn.cli import main
from tune_cnn.sweep import trainable as module
from tune_cnn.sweep.config.load import Experiment, load_experiments
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trial_folder import TrialFolder
from tune_cnn.trial import Trial

ARGUMENTS = ["sweep", "tiny.yaml", "--set", "epochs=4"]


class PowerLossError(BaseException):
    """The process is gone."""


class Disk:
    """Loses, when power fails, every new name in a folder that was not made permanent, but no deletion.

    Args:
        operations: The power fails instead of the one after so many.
    """

    def __init__(self, patch: pytest.MonkeyPatch, operations: int) -> None:
        self.left = operations
        self.permanent: dict[Path, bytes | None] = {}  # what will be there instead of a new name
        self.synced: set[int] = set()
        replace, fsync, unlink = os.replace, os.fsync, Path.unlink

        def replaced(beside: str, path: Path) -> None:
            self.operate()
            assert os.stat(beside).st_ino in self.synced, "a name was given to a file that is not on the disk yet"
            self.permanent.setdefault(path, path.read_bytes() if path.exists() else None)
            replace(beside, path)

        def synced(handle: int) -> None:
            self.operate()
            fsync(handle)
            self.synced.add(os.fstat(handle).st_ino)
            self.permanent = {
                path: content for path, content in self.permanent.items() if not self.is_open(path.parent, handle)
            }

        def unlinked(path: Path, missing_ok: bool = False) -> None:
            if path.exists():
                self.operate()
                self.permanent.pop(path, None)
            unlink(path, missing_ok)

        patch.setattr(os, "replace", replaced)
        patch.setattr(os, "fsync", synced)
        patch.setattr(Path, "unlink", unlinked)

    @staticmethod
    def is_open(folder: Path, handle: int) -> bool:
        return os.path.samestat(os.stat(folder), os.fstat(handle))

    def operate(self) -> None:
        if self.left == 0:
            raise PowerLossError
        self.left -= 1

    def lose(self) -> None:
        """What is on the disk when power comes back."""
        for path, content in self.permanent.items():
            if content is None:
                os.remove(path)
            else:
                path.write_bytes(content)


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    """Those of `tiny.yaml` in the working folder, of four epochs."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(CONFIG)
    return load_experiments([Path("tiny.yaml")], overrides=ARGUMENTS[3:])


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Puts in Ray's place what steps through one trial after the other, and is interrupted after so many epochs."""

    def interrupted_after(epochs: float) -> None:
        def run_sweep(
            experiments: Sequence[Experiment], folder: SweepFolder, *_: object, **__: object
        ) -> dict[str, str]:
            folder.save_experiments({e.name: e.settings for e in experiments})
            left = epochs
            for experiment in experiments:
                worker = trainable(experiment, folder)
                while not worker.folder.is_finished():
                    if not left:
                        worker.cleanup()
                        raise KeyboardInterrupt
                    assert "failure" not in worker.step()
                    left -= 1
            return {}

        monkeypatch.setattr("tune_cnn.api.run_sweep", run_sweep)

    return interrupted_after


def test_short_epochs_are_not_kept_one_by_one_and_a_resume_ends_the_same(experiments, monkeypatch):
    monkeypatch.setattr(module, "_CHECKPOINT_S", 3600.0)
    experiment = experiments[0]
    killed = trainable(experiment, SweepFolder("ray_results", "tiny"))
    assert [killed.step()["epoch"] for _ in range(3)] == [1, 2, 3]
    killed.writer.shutdown()
    assert [*killed.folder.checkpoints()] == [1]
    stopped = trainable(experiment, SweepFolder("stopped", "tiny"))
    assert [stopped.step()["epoch"] for _ in range(3)] == [1, 2, 3]
    stopped.cleanup()  # as when the time budget is used up
    assert [*stopped.folder.checkpoints()] == [3, 1]

    again = trainable(experiment, SweepFolder("ray_results", "tiny"))
    assert again.step()["epoch"] == 2
    while not again.folder.is_finished():
        again.step()
    expected = Trial(experiment.settings, data.load(experiment.settings.data), torch.device("cpu"))
    while expected.stop_reason is None:
        expected.run_epoch()
    assert again.folder.record()[0].first_difference(expected.history) is None
    killed.cleanup()  # as if it had only been suspended meanwhile
    assert [*again.folder.checkpoints()] == [4]


def test_wherever_power_fails_no_epoch_is_lost_but_the_one_that_is_being_written(experiments, monkeypatch):
    experiment = experiments[0]
    operations = 0
    while True:
        folder = SweepFolder(f"ray_results_{operations}", "tiny")
        epochs = 0
        with monkeypatch.context() as patch:
            disk = Disk(patch, operations)
            try:
                worker = trainable(experiment, folder)
                while not worker.folder.is_finished():
                    epochs = worker.step()["epoch"]
                break
            except PowerLossError:
                disk.lose()
        again = trainable(experiment, folder)
        if not again.folder.is_finished():
            states: list[dict[str, dict[str, list[float]]]] = []
            assert again.folder.resume(states.append) == []
            assert max((len(state["history"]["test_acc"]) for state in states), default=0) >= epochs - 1
            while not again.folder.is_finished():
                again.step()
        folder.save_experiments({experiment.name: experiment.settings})
        assert main(["export", str(folder), "--out", f"results_{operations}"]) == 0
        again.folder.forget_training(again.folder.record()[0].num_epochs)
        assert_undisturbed([experiment], folder, Path(f"results_{operations}"))
        operations += 1
    assert operations > 15


FILES = ["trials/K6_*/record.json", "trials/K6_*/best.pt", "trials/K6_*/epoch_*.pt", "sweep.json", "lock.json"]


@pytest.mark.parametrize("kept", [0, 0.5], ids=["empty", "half"])
@pytest.mark.parametrize("damaged", FILES)
def test_a_damaged_file_is_told_or_mended_and_the_results_are_undisturbed(
    experiments, runner, monkeypatch, capsys, damaged, kept
):
    runner(7)  # the first trial is finished, the second one has a last epoch to go
    assert main(ARGUMENTS) == 130
    home = Path("ray_results/tiny")
    (home / "lock.json").write_text('{"host": "somewhere", "pid": 7, "beat": 1, "started": "1", "token": "t"}')
    if "K6" in damaged and "epoch" not in damaged:  # as a crash between its last epoch and the end would leave it
        with monkeypatch.context() as patch:
            patch.setattr(TrialFolder, "forget_training", lambda self, epochs: None)
            trainable(experiments[1], SweepFolder("ray_results", "tiny")).step()
        if damaged.endswith("best.pt"):  # which is there before the record
            next(home.glob("trials/K6_*/record.json")).unlink()
    newest = sorted(home.glob(damaged))[-1]
    content = newest.read_bytes()
    newest.write_bytes(content[: int(len(content) * kept)])

    runner(float("inf"))
    exit_code = main(ARGUMENTS)
    if damaged == "sweep.json":
        assert exit_code == 2
        assert "sweep.json: damaged" in capsys.readouterr().err
        newest.unlink()
        exit_code = main(ARGUMENTS)
    assert exit_code == 0
    assert_undisturbed(experiments, SweepFolder("ray_results", "tiny"), Path("results"))
