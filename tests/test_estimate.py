"""How long a sweep takes: from a few steps of each network to the end of the last trial."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_sweep import write_config

from tune_cnn import data
from tune_cnn.errors import ResourceError
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep import estimate as room
from tune_cnn.sweep.estimate import estimate, schedule
from tune_cnn.sweep.pace import Pace, measure_pace, network_of
from tune_cnn.sweep.plan import make_plan
from tune_cnn.sweep.resources import Node, Request
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.texts import duration
from tune_cnn.train_results import FitResult
from tune_cnn.trial import Trial

ONE = Request(1, 0.0)
HALF_A_GPU = Request(1, 0.5)


@pytest.mark.parametrize(
    ("jobs", "node", "ends"),
    [
        ([], Node(2, 0), 0),
        ([(ONE, 5.0)], Node(2, 0), 5),
        ([(ONE, 5.0), (ONE, 3.0), (ONE, 2.0)], Node(2, 0), 5),  # 3 and then 2 beside 5
        ([(ONE, 5.0), (ONE, 4.0), (ONE, 3.0)], Node(2, 0), 7),
        ([(ONE, 5.0), (ONE, 4.0), (ONE, 3.0)], Node(1, 0), 12),
        ([(HALF_A_GPU, 5.0), (HALF_A_GPU, 4.0), (HALF_A_GPU, 3.0)], Node(16, 1), 7),
        ([(Request(1, 1 / 3), 2.0)] * 3, Node(16, 1), 2),
        ([(Request(2, 0.0), 4.0), (ONE, 3.0), (ONE, 3.0)], Node(2, 0), 7),  # the first alone, then both
        ([(ONE, 4.0), (Request(2, 0.0), 3.0), (ONE, 2.0)], Node(2, 0), 9),  # each waits for its turn
    ],
)
def test_a_trial_starts_in_its_turn_when_its_part_of_the_machine_is_free(jobs, node, ends):
    assert schedule(jobs, node)[0] == pytest.approx(ends)


@pytest.mark.parametrize(
    ("asked", "node", "count"),
    [([], Node(2, 0), 0), ([ONE] * 5, Node(2, 0), 2), ([ONE] * 5, Node(8, 0), 5), ([HALF_A_GPU] * 5, Node(8, 2), 4)],
)
def test_as_many_trials_at_once_as_fit(asked, node, count):
    assert schedule([(request, 1.0) for request in asked], node)[1] == count


def test_trials_share_a_time_if_their_batches_do():
    settings = Settings(bs_train=20, filters_per_layer=(4,), data=DataSettings("shapes", in_size=(3, 8, 8)))
    alike = replace(settings, seed=3, lr=0.5, epochs=7, reg=0.1, data=replace(settings.data, train_images=50))
    assert network_of(alike) == network_of(settings)
    for key, value in [("bs_train", 21), ("ycn", True), ("layers_per_block", 1), ("precision", "bf16")]:
        assert network_of(replace(settings, **{key: value})) != network_of(settings)
    assert network_of(replace(settings, data=DataSettings(in_size=(3, 8, 9)))) != network_of(settings)


def test_an_epoch_takes_what_its_batches_take(monkeypatch):
    """In the time of this thread alone, since others may keep the cores busy."""
    monkeypatch.setattr(time, "perf_counter", time.thread_time)
    source = DataSettings("shapes", in_size=(3, 16, 16), train_images=1500, test_images=10)
    settings = Settings(seed=1, bs_train=50, filters_per_layer=(16,), pool_every=2, data=source)
    pace = measure_pace(network_of(settings), torch.device("cpu"), within_s=1.0)
    trial = Trial(settings, data.load(source))
    trial.run_epoch()
    trial.run_epoch()
    batches = trial.images.train.count / settings.bs_train
    expected_s = batches * pace.train_batch_s + trial.images.validation.count * pace.evaluated_image_s
    assert 1 / 2 < expected_s / trial.epoch_durations_s[1] < 2


def test_little_time_is_enough_for_a_part_of_a_batch():
    settings = Settings(seed=1, filters_per_layer=(4,), data=DataSettings("shapes", in_size=(3, 8, 8)))
    assert all(part > 0 for part in measure_pace(network_of(settings), torch.device("cpu"), within_s=0.0))


def test_what_is_not_timed_is_scaled_from_the_nearest_of_its_kind(monkeypatch):
    work = {4: 100, 8: 400, 16: 900, 32: 1000}
    monkeypatch.setattr(room, "_work", lambda network: work[network.filters_per_layer[0]])
    plain = {k: network_of(Settings(bs_train=50, filters_per_layer=(k,))) for k in work}
    other = replace(plain[32], ycn=True)
    paces = {plain[4]: Pace(1.0, 0.1), plain[8]: Pace(2.0, 0.2), other: Pace(7.0, 0.7)}
    assert room._pace_of(plain[8], paces) == paces[plain[8]]
    assert room._pace_of(plain[16], paces) == pytest.approx(Pace(4.5, 0.45))
    larger_batch = replace(plain[16], bs_train=100)
    assert room._pace_of(larger_batch, paces) == pytest.approx(Pace(9.0, 0.45))


def test_done_trials_cost_nothing_and_continued_ones_their_missing_epochs(tmp_path, monkeypatch):
    experiments = write_config(tmp_path)
    experiments = [replace(e, settings=replace(e.settings, epochs=10, bs_test=5)) for e in experiments]
    pace = Pace(2.0, 0.5)
    monkeypatch.setattr(room, "_paces", lambda _, networks, *__: dict.fromkeys(networks, pace))
    monkeypatch.setattr(room, "_EPOCH_S", 0.25)
    monkeypatch.setattr(room, "_TRIAL_S", 0.0)
    monkeypatch.setattr(room, "_STARTS_OF_A_PROCESS", 0.0)
    folder = SweepFolder(str(tmp_path), "sweep")
    epoch_s = 85 / 20 * 2.0 + 15 * 0.5 + 0.25  # 100 images, of which 15 validate
    test_s = 30 * 0.5

    folder.trial(experiments[0].settings).save_checkpoint(4, {"w": torch.zeros(1)})
    trial_s, line = estimate(make_plan(experiments, folder), Node(1, 0), within_s=0.0)
    new, continued = 10 * epoch_s + test_s, 6 * epoch_s + test_s
    assert [trial_s[e.settings.trial_id] for e in experiments] == pytest.approx([continued, new])
    expected = f"time: at most {duration(continued + new)} on 1 core (1 trial at once), 0 GPU hours"
    assert line == expected
    monkeypatch.setattr(room, "_paces", lambda _, networks, *__: {next(iter(networks)): pace})
    monkeypatch.setattr(room, "_work", lambda network: 1)
    scaled = estimate(make_plan(experiments, folder), Node(1, 0), within_s=0.0)[1]
    assert scaled == f"{expected}; 1 trial scaled from others by multiply-adds"

    for experiment in experiments:
        results = FitResult(1, [2.3], [10.0], [2.3], [10.0])
        folder.trial(experiment.settings).finish(results, {}, {"w": torch.zeros(1)})
    found = estimate(make_plan(experiments, folder), Node(2, 0), within_s=0.0)
    assert found == ({}, "time: none, since every trial is done")


def test_what_the_machine_does_not_have_is_not_estimated(tmp_path):
    experiments = [replace(e, resources=replace(e.resources, cpus_per_trial=3)) for e in write_config(tmp_path)]
    plan = make_plan(experiments, SweepFolder(str(tmp_path), "sweep"))
    with pytest.raises(ResourceError, match="a trial asks for 3 cores and 0 GPUs, but no node has them"):
        estimate(plan, Node(2, 0), within_s=0.0)


@pytest.mark.slow
def test_every_trial_is_timed_in_processes_of_their_own(tmp_path):
    experiments = write_config(tmp_path)
    plan = make_plan(experiments, SweepFolder(str(tmp_path), "sweep"))
    trial_s, line = estimate(plan, Node(2, 0), within_s=60.0)
    assert set(trial_s) == {e.settings.trial_id for e in experiments}
    assert min(trial_s.values()) > 0
    assert line.startswith("time: at most ")
    assert "scaled" not in line


def test_images_are_counted_as_they_are_loaded(image_folder: Path):
    for source in (
        DataSettings("shapes", in_size=(3, 8, 8), train_images=101, test_images=7),
        DataSettings("image_folder", str(image_folder), in_size=(3, 8, 8)),
        DataSettings("image_folder", str(image_folder), in_size=(3, 8, 8), train_images=11, test_images=2),
    ):
        images = data.load(source)
        assert data.count_images(source) == (images.train.count, images.validation.count, images.test.count)
        assert data.nbytes(source) == images.nbytes
    assert data.count_images(DataSettings("cifar10")) == (42_500, 7_500, 10_000)
