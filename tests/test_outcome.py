"""How the trials ended, one line each."""

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.outcome import Outcome, outcome_table, outcomes, summary
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.train_results import FitResult

SETTINGS = Settings(seed=42, filters_per_layer=(32, 64), layers_per_block=4)
RESULTS = FitResult(3, [2.3] * 3, [10.0] * 3, [2.3] * 3, [11.0, 61.234, 12.0])


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(str(tmp_path), "sweep")


def table(folder: SweepFolder, experiments: dict[str, Settings]) -> str:
    return outcome_table(folder, experiments, outcomes(folder, experiments))


def lines(folder: SweepFolder) -> list[str]:
    return table(folder, {"one": SETTINGS, "its twin": SETTINGS}).splitlines()


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line)


def test_a_finished_trial_shows_what_it_reached_once_for_all_who_share_it(folder):
    summary = {"test_accuracy": 60.987, "duration_s": 83.21, "stop_reason": "plateau"}
    folder.trial(SETTINGS).finish(RESULTS, summary, {})
    header, row = map(cells, lines(folder))
    assert header == ["trial", "K", "L", "epochs", "best val acc %", "at epoch", "test acc %", "time s", "ended"]
    ended = "stopped early: no better for 3 epochs"
    assert row == [folder.trial(SETTINGS).label, "32-64", "4", "3", "61.23", "2", "60.99", "83.2", ended]


@pytest.mark.parametrize(
    ("changes", "columns"),
    [
        ([{"seed": 1}, {"seed": 2}], {"seed": ["1", "2"]}),
        ([{"lr": 1e-3}, {"lr": 0.01, "pool_every": 2}], {"lr": ["0.001", "0.01"], "P": ["2", "2"]}),
        ([{"hidden_dims": (9, 8)}, {"hidden_dims": (7,)}], {"hidden_dims": ["9-8", "7"]}),
        ([{"reg": 0.0}, {"reg": 1, "early_stopping": None}], {"reg": ["0", "1"], "early_stopping": ["3", "none"]}),
        ([{"epochs": 5}, {"epochs": 7}], {"most epochs": ["5", "7"]}),
        ([{"bs_train": 8, "bs_test": 2}, {"bs_train": 9, "bs_test": 3}], {"bs_train": ["8", "9"]}),  # as it follows
        ([{"bs_test": 2}, {"bs_test": 3}], {"bs_test": ["2", "3"]}),
        ([{"data": DataSettings(train_images=90)}, {"data": DataSettings()}], {"data.train_images": ["90", "none"]}),
    ],
)  # fmt: skip
def test_every_setting_that_differs_has_a_column(folder, changes, columns):
    header, *rows = table(folder, {str(c): replace(SETTINGS, **c) for c in changes}).splitlines()
    between = cells(header)[3:-6]
    differing = {key: values for key, values in columns.items() if len(set(values)) > 1}
    assert between == sorted(differing, key=between.index)
    for column, values in differing.items():
        assert [cells(row)[cells(header).index(column)] for row in rows] == values


@pytest.mark.parametrize("summary", [{}, {"test_accuracy": None, "duration_s": "long", "stop_reason": None}])
def test_what_a_record_lacks_is_a_dash(folder, summary):
    folder.trial(SETTINGS).finish(RESULTS, summary, {})
    assert lines(folder)[1].split()[-4:] == ["2", "-", "-", "-"]


def test_a_trial_that_was_interrupted_shows_its_epochs(folder):
    for epoch in (2, 3):
        folder.trial(SETTINGS).save_checkpoint(epoch, {"history": RESULTS.first(epoch)._asdict()})
    row = cells(lines(folder)[1])
    assert row[1:] == ["32-64", "4", "3", "61.23", "2", "-", "0.0", "unfinished: 3 of 100 epochs"]


def test_a_trial_that_has_not_begun_is_unfinished(folder):
    assert cells(lines(folder)[1])[3:] == ["0", "unfinished: 0 of 100 epochs"]


def test_a_trial_that_failed_got_over_it_and_was_interrupted_later_has_not_failed(folder):
    folder.trial(SETTINGS).save_failure("epoch 1: OSError: stale", "Traceback")
    folder.trial(SETTINGS).save_checkpoint(1, {"history": RESULTS.first(1)._asdict()})
    assert lines(folder)[1].endswith("unfinished: 1 of 100 epochs")


@pytest.mark.parametrize("content", [b"{", b'{"config": {"seed": "x"}, "results": {}}'])
def test_a_damaged_record_is_named_on_its_line(folder, content):
    trial = folder.trial(SETTINGS)
    trial.folder.write("record.json", content)
    (row,) = lines(folder)[1:]
    assert f"{trial.folder}/record.json: damaged (" in row
    assert row.endswith("the sweep's command runs the trial again")


def test_the_summary_says_who_runs_it_and_until_when():
    found = [
        Outcome([], is_finished=True, epoch_s=30.0),
        Outcome([], epochs_left=10, epoch_s=60.0, is_running=True),
        Outcome([], epochs_left=20),  # as long an epoch as the mean of the others: 45 s
        Outcome([], has_failed=True),
    ]
    line = summary(found, "process 7 on box")
    told = "1/4 trials finished, 1 failed; process 7 on box is running it; about 25 min 0 s left, until "
    assert re.fullmatch(re.escape(told) + r"\w+ \d\d:\d\d", line)
    assert summary(found, None) == "1/4 trials finished, 1 failed; nobody is running it"
    assert summary(found[:1], "process 7 on box") == "1/1 trials finished; process 7 on box is running it"
    assert summary(found[2:], "process 7 on box") == "0/2 trials finished, 1 failed; process 7 on box is running it"


def test_what_is_left_follows_from_the_checkpoints(folder):
    folder.trial(SETTINGS).save_checkpoint(3, {"history": RESULTS._asdict(), "epoch_durations_s": [1.0, 2.0, 4.0]})
    (outcome,) = outcomes(folder, {"one": SETTINGS, "its twin": SETTINGS}).values()
    assert outcome[1:] == (False, False, 97, 4.0, True)


def test_what_waits_since_a_sweep_was_resumed_does_not_run_at_the_same_time(folder):
    trials = [replace(SETTINGS, seed=seed, epochs=21) for seed in range(14)]
    for settings in trials:
        trial = folder.trial(settings)
        trial.save_checkpoint(1, {"history": RESULTS.first(1)._asdict(), "epoch_durations_s": [60.0]})
        if settings.seed > 1:  # the others have gone on
            hour_ago = time.time() - 3600
            os.utime(trial.folder.local_path / "epoch_0001.pt", (hour_ago, hour_ago))
    found = outcomes(folder, {str(settings.seed): settings for settings in trials}).values()
    assert "; about 2 h 20 min left, until " in summary(found, "process 7 on box")
    waiting = [outcome for outcome in found if not outcome.is_running]
    assert summary(waiting, "process 7 on box") == "0/12 trials finished; process 7 on box is running it"
