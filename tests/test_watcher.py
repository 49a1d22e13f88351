"""What a running sweep shows of its trials."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from tune_cnn.settings import Settings
from tune_cnn.sweep import watcher as module
from tune_cnn.sweep.live_table import Progress
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.watcher import Watcher

SETTINGS = Settings(epochs=9)
TRIAL = SimpleNamespace(config={"trial_id": SETTINGS.trial_id}, last_result={})


def result(epoch: int, stop_reason: str | None = None) -> dict[str, Any]:
    keys = "train_loss", "validation_loss", "validation_accuracy", "best_validation_accuracy", "epoch_duration_s"
    return {**dict.fromkeys(keys, 1.0), "epoch": epoch, "epochs": 9, "stop_reason": stop_reason, "warnings": []}


def test_an_epoch_that_is_trained_again_after_its_process_was_lost_is_shown_once(tmp_path: Path):
    text, folder = StringIO(), SweepFolder(str(tmp_path), "sweep")
    label = folder.trial(SETTINGS).label
    watcher = Watcher([SETTINGS], folder, Progress({label: SETTINGS}, console=Console(file=text, width=200)))
    for epoch in (1, 2):
        watcher.on_trial_result(0, [], TRIAL, {**result(epoch), "warnings": [f"epoch_{epoch}.pt: damaged"]})
    watcher.on_trial_recover(0, [], TRIAL)
    for epoch, reason in ((2, None), (3, "epochs")):
        watcher.on_trial_result(0, [], TRIAL, result(epoch, reason))
    shown = [line.split("epoch ")[1].split("/")[0] for line in text.getvalue().splitlines() if " epoch " in line]
    assert shown == ["1", "2", "3"]
    assert f"{label}: epoch_1.pt: damaged\n" in text.getvalue()


def test_a_failed_trial_names_the_file_with_the_whole_error(tmp_path: Path):
    text, folder = StringIO(), SweepFolder(str(tmp_path), "sweep")
    trial = folder.trial(SETTINGS)
    trial.save_failure("epoch 1: RuntimeError: boom", "Traceback")
    watcher = Watcher([SETTINGS], folder, Progress({trial.label: SETTINGS}, console=Console(file=text)))
    watcher.on_trial_result(0, [], TRIAL, {"failure": "epoch 1: RuntimeError: boom"})
    watcher.on_trial_complete(0, [], TRIAL)
    assert text.getvalue().endswith(f"failed: epoch 1: RuntimeError: boom; see {trial.folder}/error.txt\n")
    assert watcher.failures == {SETTINGS.trial_id: "epoch 1: RuntimeError: boom"}


def test_a_trial_whose_process_is_lost_too_often_has_failed_for_others_too(tmp_path: Path, monkeypatch):
    folder, text = SweepFolder(str(tmp_path), "sweep"), StringIO()
    trial = folder.trial(SETTINGS)
    monkeypatch.setattr(module, "logs_folder", lambda: tmp_path)
    watcher = Watcher([SETTINGS], folder, Progress({trial.label: SETTINGS}, console=Console(file=text)))
    lost = SimpleNamespace(**vars(TRIAL), num_failures=4, get_error=lambda: "Failure # 4\n\tpid: 7\n")
    watcher.on_trial_error(0, [], lost)
    failure = "its process was lost 4 times: killed, perhaps out of memory"
    assert (trial.failure(), watcher.failures) == (failure, {SETTINGS.trial_id: failure})
    assert text.getvalue().endswith(f"failed: {failure}; see {trial.folder}/error.txt\n")


def test_why_a_trial_failed_in_an_earlier_sweep_is_not_taken_for_the_reason_now(tmp_path: Path):
    text, folder = StringIO(), SweepFolder(str(tmp_path), "sweep")
    trial = folder.trial(SETTINGS)
    trial.save_failure("epoch 1: RuntimeError: boom", "Traceback")
    watcher = Watcher([SETTINGS], folder, Progress({trial.label: SETTINGS}, console=Console(file=text)))
    started = SimpleNamespace(**vars(TRIAL), num_failures=0)
    watcher.on_trial_start(0, [], started)
    watcher.on_trial_recover(0, [], started)
    assert text.getvalue().endswith("its process was lost; retrying\n")
    trial.save_failure("epoch 1: RuntimeError: boom", "Traceback")
    started.num_failures = 1
    watcher.on_trial_start(0, [], started)  # again, and an error that repeats is final
    assert trial.failure() == "epoch 1: RuntimeError: boom"


def test_a_resumed_trial_has_the_epochs_of_its_checkpoint_behind_it(tmp_path: Path):
    folder, other = SweepFolder(str(tmp_path), "sweep"), replace(SETTINGS, seed=2)
    label = folder.trial(SETTINGS).label
    progress = Progress({label: SETTINGS}, {label: 7}, console=Console(file=StringIO()))
    watcher = Watcher([SETTINGS], folder, progress)
    watcher.add(other, folder.trial(other), 6)
    watcher.on_trial_start(0, [], SimpleNamespace(**vars(TRIAL), num_failures=0))
    watcher.on_trial_result(0, [], TRIAL, result(8, "scheduler"))
    assert "about 4.0 s left" in progress._summary()  # an epoch of the one and three of the other, 1 s each
