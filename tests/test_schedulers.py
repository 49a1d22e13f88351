"""Tune's schedulers in a sweep: what they stop ends properly, stays stopped, and can go on to its end."""

import json
import signal
import time
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from easy_images import easy_images
from ray.tune.schedulers import TrialScheduler
from sweep_process import Sweep, SweepProcess, assert_undisturbed, undisturbed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_sweep import train

from tune_cnn import data
from tune_cnn.cli import main
from tune_cnn.cli.options import seconds
from tune_cnn.errors import ConfigError
from tune_cnn.results import export
from tune_cnn.settings import Settings
from tune_cnn.sweep.config.load import Experiment, load_experiments
from tune_cnn.sweep.schedulers import scheduler
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.trial import Trial

ASHA = """
run_name: tiny_{sample}
search: {lr: {loguniform: [1.0e-5, 1.0e-1]}}
samples: 6
scheduler: {asha: {grace_period: 2, reduction_factor: 2}}
settings:
  {seed: 4, bs_train: 2, epochs: 8, early_stopping: null, filters_per_layer: [4], layers_per_block: 1, hidden_dims: [9]}
data: arrays:easy.npz
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Images that are learned with the greater learning rates alone."""
    easy = easy_images(train=120)
    sets = {"train": easy.train, "test": easy.test}
    arrays = {f"{name}_{part}": getattr(found, part) for name, found in sets.items() for part in ("images", "labels")}
    np.savez(tmp_path / "easy.npz", **arrays)
    path = tmp_path / "tiny.yaml"
    path.write_text(ASHA)
    return path


def load(path: Path, *overrides: str, finish: tuple[str, ...] = ()) -> list[Experiment]:
    return load_experiments([path], overrides=overrides, finish=finish)


def histories(folder: SweepFolder, experiments: list[Experiment]) -> dict[str, tuple[int, str]]:
    """How many epochs each experiment has, and why it ended."""
    records = {e.name: folder.trial(e.settings).record() for e in experiments}
    assert all(records.values())
    return {name: (record[0].num_epochs, record[1]["stop_reason"]) for name, record in records.items() if record}


def assert_parts_of_undisturbed(experiments: list[Experiment], folder: SweepFolder) -> None:
    """Every trial has the first epochs of a training that nothing stopped, each of them once."""
    for experiment in experiments:
        record = folder.trial(experiment.settings).record()
        assert record is not None
        history, summary = record
        assert history == undisturbed(experiment.settings).history.first(history.num_epochs)
        assert len(summary["epoch_durations_s"]) == history.num_epochs
        assert summary["test_accuracy"] is not None
        with folder.trials.on_disk() as shown:
            events = EventAccumulator(str(shown / folder.trial(experiment.settings).label)).Reload()
        steps = [event.step for event in events.Scalars("accuracy/validation")]
        assert steps == list(range(1, history.num_epochs + 1))


# Config files


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("scheduler=asha", {"asha": {"grace_period": 1, "reduction_factor": 4.0}}),
        ("scheduler={asha: {grace_period: 3}}", {"asha": {"grace_period": 3, "reduction_factor": 4.0}}),
        ("scheduler=median", {"median": {"grace_period": 1, "min_samples_required": 3}}),
        ("scheduler={median: null}", {"median": {"grace_period": 1, "min_samples_required": 3}}),
        ("scheduler=null", None),
    ],
)
def test_a_scheduler_has_tunes_arguments_and_defaults(config, override, expected):
    assert load(config, override)[0].scheduler == expected


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("scheduler=ahsa", "scheduler.ahsa: unknown key; did you mean 'asha'?"),
        ("scheduler=3", "scheduler: 3 is not a mapping; write keys under it, such as asha: {grace_period: 3}, or "
         "leave it out"),
        (
            "scheduler={asha: 3}",
            "scheduler.asha: 3 is not a mapping of names to values",
        ),
        ("scheduler={asha: {grace_period: 0}}", "scheduler.asha.grace_period: 0 is not a whole number from 1 up"),
        ("scheduler={asha: {reduction_factor: 1}}", "scheduler.asha.reduction_factor: 1 is not a number above 1"),
        ("scheduler={asha: {grace: 1}}", "scheduler.asha.grace: unknown key; there are grace_period, reduction_factor"),
        ("scheduler={asha: {}, median: {}}", "scheduler: asha and median; write one, such as scheduler: asha"),
        ("scheduler={}", "scheduler: empty; write one, such as scheduler: asha"),
        (
            "scheduler={asha: {grace_period: 8}}",
            "scheduler.asha.grace_period: 8 is no less than the 8 epochs of tiny_000, so nothing would stop; "
            "give less, or scheduler: null",
        ),
    ],
)  # fmt: skip
def test_a_faulty_scheduler_is_named_with_its_remedy(config, override, fault):
    with pytest.raises(ConfigError) as caught:
        load(config, override)
    assert str(caught.value).split("\n")[1:] == [f"  {fault}"]


def test_a_sweep_has_one_scheduler(config, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("run_name: other\ndata: {source: shapes, in_size: [3, 8, 8]}\n")
    with pytest.raises(ConfigError, match="scheduler: differs between the files"):
        load_experiments([config, other])


def test_experiments_to_be_finished_have_no_scheduler(config):
    assert [e.name for e in load(config, finish=("*_00[12]",)) if e.scheduler is None] == ["tiny_001", "tiny_002"]
    with pytest.raises(ConfigError, match="finish: 1 problem\n  'x' matches no name"):
        load(config, finish=("x",))


def test_a_trial_that_two_experiments_share_is_finished_for_either(config, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(config.read_text().replace("tiny_{sample}", "other_{sample}"))
    experiments = load_experiments([config, other], finish=["other_001"])
    assert [e.name for e in experiments if e.scheduler is None] == ["tiny_001", "other_001"]


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_a_time_budget_has_a_unit(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "h", "-1", "0", "2d", "nan", "inf"])
def test_what_is_no_time_budget_is_refused(text, config, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", str(config), f"--time-budget={text}"])
    assert "is not a length of time; write one such as 90s, 30m or 2h" in capsys.readouterr().err


# Decisions


def told(made: TrialScheduler, settings: Settings, *accuracies: float) -> None:
    """What Tune tells the scheduler of a trial."""
    trial = SimpleNamespace(config={"trial_id": settings.trial_id}, trial_id=f"tune's {settings.trial_id}")
    made.on_trial_add(None, trial)
    for epoch, accuracy in enumerate(accuracies, start=1):
        result = {"epoch": epoch, "best_validation_accuracy": accuracy, "stop_reason": None}
        assert made.on_trial_result(None, trial, result) == TrialScheduler.CONTINUE


def test_a_trial_that_falls_behind_is_to_stop_and_nobody_else(config, tmp_path):
    folder = SweepFolder(str(tmp_path), "tiny")
    good, fair, bad, failing = (e.settings for e in load(config)[:4])
    made = scheduler({"asha": {"grace_period": 2, "reduction_factor": 2}}, [good, fair, bad, failing], folder)
    told(made, good, 20, 40, 60)
    told(made, fair, 20, 40, 50)
    told(made, bad, 20, 30)
    trial = SimpleNamespace(config={"trial_id": failing.trial_id}, trial_id="another")
    made.on_trial_add(None, trial)
    made.on_trial_result(None, trial, {"failure": "epoch 1: RuntimeError"})
    made.on_trial_complete(None, trial, {"failure": "epoch 1: RuntimeError"})
    assert [folder.trial(settings).is_to_stop(2) for settings in (good, fair, bad, failing)] == [
        False,
        False,
        True,
        False,
    ]
    assert not folder.trial(bad).is_to_stop(1)


@pytest.mark.parametrize("spec", [{"asha": {"grace_period": 1, "reduction_factor": 2}},
                                  {"median": {"grace_period": 1, "min_samples_required": 2}}])  # fmt: skip
def test_a_resumed_sweep_compares_with_what_was_reported_before(config, tmp_path, spec):
    folder = SweepFolder(str(tmp_path), "tiny")
    experiments = load(config, "epochs=3", "samples=3")
    train(experiments[:2], folder)
    settings = [e.settings for e in experiments]
    told(scheduler(spec, settings, folder), settings[2], 0)
    assert folder.trial(settings[2]).is_to_stop(1)
    told(scheduler(spec, settings, folder), settings[2], 0)  # and it may report so again after a lost process
    fresh = SweepFolder(str(tmp_path), "fresh")
    told(scheduler(spec, settings, fresh), settings[2], 0)
    assert not fresh.trial(settings[2]).is_to_stop(1)


@pytest.mark.parametrize("spec", [{"asha": {"grace_period": 1, "reduction_factor": 2}},
                                  {"median": {"grace_period": 1, "min_samples_required": 2}}])  # fmt: skip
def test_epochs_that_are_trained_again_are_not_decided_about_again(config, tmp_path, spec):
    folder = SweepFolder(str(tmp_path), "tiny")
    first, second, third = (e.settings for e in load(config)[:3])
    made = scheduler(spec, [first, second, third], folder)
    told(made, first, 30, 40)
    told(made, second, 80, 90)
    told(made, third, 80, 90)
    told(made, first, 30, 40)  # after its process was lost
    assert not folder.trial(first).is_to_stop(2)


def cut(experiment: Experiment, folder: SweepFolder, epochs: int) -> None:
    """Leave a trial as one that a scheduler stopped."""
    trial = Trial(experiment.settings, data.load(experiment.settings.data))
    for _ in range(epochs):
        trial.run_epoch()
    trial.end("scheduler")
    last = trial.state_dict()
    folder.trial(experiment.settings).finish(trial.history, trial.summary(), trial.best_weights, last)


def test_a_stopped_trial_is_exported_and_repeated_like_any_other(config, tmp_path, capsys):
    folder = SweepFolder(str(tmp_path), "tiny")
    experiments = load(config, "samples=1", "epochs=4")
    cut(experiments[0], folder, 2)
    folder.save_experiments({e.name: e.settings for e in experiments})
    (path,) = export(folder, tmp_path / "results").files
    exported = json.loads(path.read_text())
    assert exported["trial"]["stop_reason"] == "scheduler"
    assert exported["trial"]["test_accuracy"] is not None
    assert exported["config"]["epochs"] == 4
    assert exported["results"]["num_epochs"] == 2
    assert main(["trial", str(folder), "tiny_000", "--threads", "1"]) == 0
    assert "identical: all 2 epochs" in capsys.readouterr().out
    assert main(["status", str(folder)]) == 0
    assert "stopped by the scheduler after 2 of 4 epochs" in capsys.readouterr().out
    assert main(["report", str(folder), "--out", str(tmp_path / "results")]) == 0
    assert "stopped by the scheduler after 2 of 4 epochs" in (tmp_path / "results" / "tiny_report.md").read_text()


@pytest.mark.parametrize("options", [["--finish", "tiny_000"], ["--set", "scheduler=null"]])
def test_a_stopped_trial_is_done_until_no_scheduler_may_stop_it(config, tmp_path, capsys, options):
    folder = SweepFolder(str(tmp_path), "tiny")
    experiments = load(config, "samples=1")
    cut(experiments[0], folder, 2)
    folder.save_experiments({e.name: e.settings for e in experiments})
    command = ["sweep", str(config), "--storage", str(tmp_path), "--set", "samples=1", "--dry-run"]
    assert main(command) == 0
    assert "1 trial: 1 done" in capsys.readouterr().out
    assert main([*command, *options]) == 0
    assert "1 trial: 0 done, 1 to continue" in capsys.readouterr().out


def test_what_a_scheduler_stopped_in_another_sweep_goes_on_from_there(config, tmp_path, capsys):
    first, second = (SweepFolder(str(tmp_path), name) for name in ("first", "second"))
    experiments = load(config, "samples=1", "epochs=4")
    cut(experiments[0], first, 2)
    first.save_experiments({e.name: e.settings for e in experiments})
    assert [epoch.rpartition(" ")[2] for epoch in train(experiments, second)] == ["3", "4"]
    command = ["sweep", str(config), "--storage", str(tmp_path), "--name", "second", "--set", "epochs=4", "--dry-run"]
    assert main([*command, "--finish", "tiny_00[01]"]) == 0
    assert "finish:" not in capsys.readouterr().err
    assert main([*command, "--finish", "tiny_000"]) == 0
    assert "finish: what it names has run to its end already\n" in capsys.readouterr().err


# Sweeps


@pytest.mark.slow
def test_a_sweep_stops_what_falls_behind_and_finishes_it_on_request(config, tmp_path, capsys):
    arguments = Sweep(tmp_path).arguments
    assert main(arguments) == 0
    folder, experiments = SweepFolder(str(Sweep(tmp_path).storage), "tiny"), load(config)
    ended = histories(folder, experiments)
    stopped = [name for name, (_, reason) in ended.items() if reason == "scheduler"]
    assert stopped
    assert {epochs for epochs, reason in ended.values() if reason == "epochs"} == {8}
    assert {ended[name][0] for name in stopped} <= {2, 4}
    accuracies = {e.name: folder.trial(e.settings).record()[0].best_accuracy for e in experiments}
    assert max(accuracies, key=accuracies.get) not in stopped
    assert_parts_of_undisturbed(experiments, folder)
    captured = capsys.readouterr()
    assert f"stopped by the scheduler after {ended[stopped[0]][0]} of 8 epochs" in captured.out + captured.err
    assert len([line for line in captured.err.splitlines() if " epoch " in line]) == sum(n for n, _ in ended.values())

    assert main(arguments) == 0  # nothing runs again by itself
    assert "6 trials: 6 done" in capsys.readouterr().err
    assert main([*arguments, "--finish", "*"]) == 0
    assert set(histories(folder, experiments).values()) == {(8, "epochs")}
    assert_undisturbed(experiments, folder, Sweep(tmp_path).results)


@pytest.mark.slow
def test_a_killed_sweep_with_a_scheduler_loses_no_trial_and_runs_none_twice(config, tmp_path):
    sweep, random = Sweep(tmp_path), Random(1)
    folder, experiments = SweepFolder(str(sweep.storage), "tiny"), load(config)
    for _ in range(2):
        with SweepProcess(sweep.arguments, tmp_path) as process:
            before = sum(folder.trial(e.settings).is_finished() for e in experiments)
            process.wait_until(lambda: " epoch " in process.stderr)
            time.sleep(random.random() * 2)
            process.send_to_group(signal.SIGKILL)
            process.exit_code()
        assert sum(folder.trial(e.settings).is_finished() for e in experiments) >= before
    with SweepProcess(sweep.arguments, tmp_path) as process:
        assert process.exit_code() == 0, process.stderr
    assert set(histories(folder, experiments).values()) <= {(n, "scheduler") for n in range(1, 8)} | {(8, "epochs")}
    assert_parts_of_undisturbed(experiments, folder)


@pytest.mark.slow
def test_a_time_budget_ends_a_sweep_that_the_same_command_continues(config, tmp_path, capsys):
    arguments = [*Sweep(tmp_path, ("scheduler=null", "epochs=2000", "samples=2")).arguments, "--max-concurrent", "1"]
    assert main([*arguments, "--time-budget", "20s"]) == 1
    assert "the time budget is used up, 2 experiments unfinished; the same command continues" in capsys.readouterr().out
    folder, experiments = SweepFolder(str(Sweep(tmp_path).storage), "tiny"), load(config, "samples=2", "epochs=2000")
    trained = [bool(folder.trial(e.settings).checkpoints()) for e in experiments]
    assert sum(trained) == 1  # one after the other
