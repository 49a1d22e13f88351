"""Trainings that are there already are continued or copied, and end bit for bit where new ones would."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_sweep import train, write_config

from tune_cnn.settings import Settings
from tune_cnn.sweep.config.load import Experiment
from tune_cnn.sweep.earlier import find_earlier
from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.plan import found_elsewhere, make_plan, plan_summary
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.training.state import state_from_bytes


@pytest.fixture(params=["local", "mock://"])
def storage(request, tmp_path: Path) -> str:
    """Where sweeps lie: on the disk, or through pyarrow as on S3."""
    return str(tmp_path / "sweeps") if request.param == "local" else f"mock://{tmp_path}/sweeps"


@pytest.fixture
def experiments(tmp_path: Path) -> list[Experiment]:
    return changed(write_config(tmp_path), epochs=3, early_stopping=None)


def changed(experiments: Sequence[Experiment], **settings: object) -> list[Experiment]:
    return [replace(e, settings=replace(e.settings, **settings)) for e in experiments]


def assert_as_new(folder: SweepFolder, experiments: Sequence[Experiment], tmp_path: Path) -> None:
    """The records and weights are those of trials that were trained at one go, where nothing else is."""
    alone = SweepFolder(str(tmp_path / "alone"), "alone")
    shutil.rmtree(tmp_path / "alone", ignore_errors=True)
    train(experiments, alone)
    for experiment in experiments:
        trial, expected = folder.trial(experiment.settings), alone.trial(experiment.settings)
        (history, facts), (expected_history, expected_facts) = trial.record(), expected.record()
        assert expected_history.first_difference(history) is None
        for key in ("id", "test_accuracy", "test_loss", "confusion", "best_epoch", "stop_reason"):
            assert facts[key] == expected_facts[key], key
        assert len(facts["epoch_durations_s"]) == history.num_epochs
        weights = [state_from_bytes(each.folder.read("best.pt"), "best.pt") for each in (trial, expected)]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("interrupted_after", [None, 2])
def test_more_epochs_continue_what_is_there(storage, experiments, tmp_path, interrupted_after):
    folder = SweepFolder(storage, "tiny")
    train(experiments, folder, interrupted_after)
    longer = changed(experiments, epochs=5)
    plan = make_plan(longer, folder)
    assert plan_summary(plan) == "2 experiments, 2 trials: 0 done, 2 to continue, 0 new"
    epoch = interrupted_after or 3
    assert found_elsewhere(plan) == ["2 trials taken from sweep tiny, to be continued"]
    assert [line.epochs_left for line in plan] == [5 - epoch] * 2
    labels = [folder.trial(e.settings).label for e in longer]
    assert train(longer, folder) == [f"{label} {n}" for label in labels for n in range(epoch + 1, 6)]
    assert_as_new(folder, longer, tmp_path)
    # What was asked for before the last time is remembered, too.
    longest = changed(experiments, epochs=6)
    folder.save_experiments({"another": replace(experiments[0].settings, lr=0.5)})
    assert len(train(longest, SweepFolder(storage, "tiny"))) == 2


def test_fewer_epochs_end_there_where_the_best_weights_are_of_one_of_them(storage, experiments, tmp_path):
    folder = SweepFolder(storage, "tiny")
    long = changed(experiments, epochs=8, seed=1, lr=0.01)
    train(long, folder)
    bests = {folder.trial(e.settings).record()[0].best_epoch for e in long[:1]}
    (best,) = bests
    assert 1 < best < 8
    shorter = changed(long[:1], epochs=7)
    plan = make_plan(shorter, folder)
    assert found_elsewhere(plan) == ["1 trial taken from sweep tiny, to be continued"]
    assert train(shorter, folder) == []
    assert_as_new(folder, shorter, tmp_path)
    assert not folder.trial(shorter[0].settings).checkpoints(), "a state of another epoch than its last one"
    too_short = changed(long[:1], epochs=best - 1)
    assert plan_summary(make_plan(too_short, folder)).endswith("1 new")
    assert len(train(too_short, folder)) == best - 1
    assert_as_new(folder, too_short, tmp_path)


def test_what_decides_the_epochs_must_be_equal(experiments, tmp_path):
    folder = SweepFolder(str(tmp_path), "tiny")
    train(changed(experiments, epochs=1, warmup=0.1), folder)
    for settings in ({"epochs": 2, "warmup": 0.1}, {"epochs": 2}, {"epochs": 1, "lr": 0.5}, {"epochs": 1, "seed": 1}):
        assert find_earlier(changed(experiments, **settings), folder) == {}
    train(changed(experiments, epochs=1), folder)
    assert len(find_earlier(changed(experiments, epochs=2), folder)) == 2


@pytest.mark.parametrize("interrupted_after", [None, 1])
def test_an_equal_trial_of_another_sweep_is_copied(storage, experiments, tmp_path, interrupted_after):
    other, folder = SweepFolder(storage, "one"), SweepFolder(storage, "both")
    train(experiments[:1], other, interrupted_after)
    other.trial(experiments[0].settings).folder.write("events.out.tfevents.1", b"curves")
    plan = make_plan(experiments, folder)
    if interrupted_after:
        assert plan_summary(plan).endswith("0 done, 1 to continue, 1 new")
        assert found_elsewhere(plan) == ["1 trial taken from sweep one, to be continued"]
    else:
        assert plan_summary(plan).endswith("1 done, 0 to continue, 1 new")
        assert found_elsewhere(plan) == ["1 trial taken from sweep one, finished"]
    assert len(train(experiments, folder)) == 3 + (2 if interrupted_after else 0)
    # It is whole without the other one.
    other.folder.delete("sweep.json")
    for name in other.trial(experiments[0].settings).folder.names():
        other.trial(experiments[0].settings).folder.delete(name)
    assert_as_new(folder, experiments, tmp_path)
    assert ("events.out.tfevents.1" in folder.trial(experiments[0].settings).folder.names()) == (not interrupted_after)


def test_damage_in_another_sweep_is_ignored(storage, experiments):
    for number, damage in enumerate(
        (b"", b"{", b"[]", b'{"trials": "../x"}', b'{"trials": "trials", "experiments": 3}')
    ):
        SweepFolder(storage, f"damaged{number}").folder.write("sweep.json", damage)
    other, folder = SweepFolder(storage, "one"), SweepFolder(storage, "both")
    train(experiments, other)
    other.trial(experiments[0].settings).folder.write("record.json", b"{")
    for name in other.trial(experiments[0].settings).checkpoints().values():
        other.trial(experiments[0].settings).folder.write(name, b"PK")
    assert "1 done" in plan_summary(make_plan(experiments, folder))
    assert len(train(experiments, folder)) == 3


def test_another_sweep_is_left_alone_after_fresh_and_for_trials_without_a_seed(experiments, tmp_path):
    other, folder = SweepFolder(str(tmp_path), "one"), SweepFolder(str(tmp_path), "both")
    unseeded = changed(experiments[:1], seed=None)
    train([*experiments, *unseeded], other)
    assert set(find_earlier([*experiments, *unseeded], folder)) == {e.settings.trial_id for e in experiments}
    folder.start_over()
    assert find_earlier(experiments, folder) == {}
    folder.save_experiments({})
    folder = SweepFolder(str(tmp_path), "both")  # which goes on with what was begun afresh
    assert find_earlier(experiments, folder) == {}


def test_many_sweeps_and_trials_are_looked_through_with_one_listing_each(experiments, tmp_path, monkeypatch):
    listed: list[str] = []
    names = Folder.names
    for number in range(10):
        sweep = SweepFolder(str(tmp_path), f"sweep{number}")
        sweep.save_experiments({f"e{n}": Settings(seed=n + 100 * number) for n in range(50)})
    monkeypatch.setattr(Folder, "names", lambda self: (listed.append(str(self)), names(self))[1])
    wanted = [replace(experiments[0], settings=Settings(seed=n, epochs=7)) for n in range(100)]
    assert find_earlier(wanted, SweepFolder(str(tmp_path), "new")) == {}
    assert sum("trials" in place.rpartition("/")[2] for place in listed) == 11
