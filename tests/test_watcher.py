"""The epochs that a running sweep shows are those that it keeps."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tune_cnn.settings import Settings
from tune_cnn.sweep.live_table import Progress
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.watcher import Watcher

SETTINGS = Settings(epochs=9)
TRIAL = SimpleNamespace(config={"trial_id": SETTINGS.trial_id}, last_result={})


class Watched:
    """A sweep of one trial that is watched, but not trained."""

    def __init__(self, storage: str) -> None:
        self.text = StringIO()
        folder = SweepFolder(storage, "sweep")
        self.trial = folder.trial(SETTINGS)
        self.progress = Progress({self.trial.label: SETTINGS}, console=Console(file=self.text, width=200))
        self.watcher = Watcher([SETTINGS], folder, self.progress)

    def report(self, epoch: int, stop_reason: str | None = None) -> None:
        keys = "train_loss", "validation_loss", "validation_accuracy", "best_validation_accuracy", "epoch_duration_s"
        numbers: dict[str, Any] = dict.fromkeys(keys, 1.0)
        result = {**numbers, "epoch": epoch, "epochs": 9, "stop_reason": stop_reason, "warnings": []}
        self.watcher.on_trial_result(0, [], TRIAL, result)

    @property
    def shown(self) -> list[int]:
        lines = self.text.getvalue().splitlines()
        return [int(line.split("epoch ")[1].split("/")[0]) for line in lines if " epoch " in line]


@pytest.fixture(params=["local", "mock://"])
def watched(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr("tune_cnn.sweep.watcher._REMOTE_INTERVAL_S", 0.0)
    return Watched(str(tmp_path) if request.param == "local" else f"mock://{tmp_path}")


def test_an_epoch_is_shown_when_its_checkpoint_is_written(watched):
    watched.report(1)
    watched.watcher.on_step_end(0, [])
    assert watched.shown == []
    watched.trial.save_checkpoint(1, {})
    watched.watcher.on_step_end(0, [])
    watched.watcher.on_step_end(0, [])
    assert watched.shown == [1]


def test_an_epoch_is_shown_at_once_if_its_checkpoint_is_there_and_the_last_one_always(watched):
    watched.trial.save_checkpoint(1, {})
    watched.report(1)
    assert watched.shown == [1]
    watched.report(2)  # which is written before the next one ends
    watched.report(3, "epochs")
    assert watched.shown == [1, 2, 3]


def test_an_epoch_that_was_lost_with_its_process_is_shown_when_it_has_been_trained_again(watched):
    watched.report(1)
    watched.watcher.on_trial_recover(0, [], TRIAL)
    watched.trial.save_checkpoint(1, {})
    watched.report(1)
    assert watched.shown == [1]


def test_a_resumed_trial_has_the_epochs_of_its_checkpoint_behind_it(tmp_path):
    folder, other = SweepFolder(str(tmp_path), "sweep"), replace(SETTINGS, seed=2)
    folder.trial(SETTINGS).save_checkpoint(7, {})
    folder.trial(other).save_checkpoint(6, {})
    watched = Watched(str(tmp_path))
    watched.watcher.add(other)
    watched.watcher.on_trial_start(0, [], TRIAL)
    watched.report(8, "scheduler")
    assert "about 4.0 s left" in watched.progress._summary()  # an epoch of the one and three of the other, 1 s each
