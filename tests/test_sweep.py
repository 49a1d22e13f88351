"""Whole sweeps on a small Ray of this process: what they leave, share, reuse, refuse and place."""

import gc
import json
import re
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.tune import Callback

from tune_cnn import data
from tune_cnn.diagnosis import diagnose
from tune_cnn.errors import ResourceError
from tune_cnn.settings import Settings
from tune_cnn.sweep.cluster import ClusterOptions, connected
from tune_cnn.sweep.config.load import Experiment, load_experiments
from tune_cnn.sweep.live_table import Progress
from tune_cnn.sweep.plan import make_plan
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trainable import TrialStopper
from tune_cnn.trial import Trial

CONFIG = """
run_name: tiny_K{K}_L{L}
grid:
  filters_per_layer: [[4], [6]]
  layers_per_block: [1, 2]
settings: {seed: 42, bs_train: 20, epochs: 3, early_stopping: 5, hidden_dims: [10]}
data: {source: shapes, in_size: [3, 8, 8], train_images: 100, test_images: 30}
"""


@pytest.fixture(scope="module")
def ray_here():
    """A Ray with four cores and two GPUs, whatever this machine has."""
    import ray

    ray.init(
        address="local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False,
        object_store_memory=200 * 2**20,
    )  # fmt: skip
    yield ray
    ray.shutdown()


def experiments_of(text: str, folder: Path, *overrides: str) -> list[Experiment]:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return load_experiments([path], overrides=overrides)


def run(experiments: list[Experiment], folder: SweepFolder, **options: Any) -> dict[str, str]:
    from tune_cnn.sweep.runner import run_sweep

    return run_sweep(make_plan(experiments, folder), folder, ClusterOptions(), **options)


def alone(settings: Settings) -> Trial:
    """The same trial in this process, on one thread as in the sweep."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trial = Trial(settings, data.load(settings.data))
        while trial.stop_reason is None:
            trial.run_epoch()
    finally:
        torch.set_num_threads(threads)
    return trial


@pytest.fixture(scope="module")
def finished(ray_here, tmp_path_factory) -> tuple[list[Experiment], SweepFolder]:
    """A finished sweep of four trials."""
    base = tmp_path_factory.mktemp("finished")
    experiments = experiments_of(CONFIG, base)
    folder = SweepFolder(str(base / "ray_results"), "tiny")
    assert run(experiments, folder) == {}
    return experiments, folder


def test_a_sweep_equals_single_trials_bit_for_bit(finished):
    experiments, folder = finished
    for experiment in experiments:
        results, summary = folder.trial(experiment.settings).record()
        trial = alone(experiment.settings)
        assert results.first_difference(trial.history) is None
        assert summary["test_accuracy"] == trial.test_result.accuracy
        assert summary["threads"] == 1
        assert summary["diagnosis"] == diagnose(experiment.settings, trial.images.train).to_json()


def test_tune_sees_the_hyperparameters_that_differ(ray_here, tmp_path, monkeypatch):
    from tune_cnn.sweep import watcher

    configs = []

    class Recording(watcher.Watcher):
        def on_trial_start(self, iteration, trials, trial, **info):
            configs.append(trial.config)
            super().on_trial_start(iteration, trials, trial, **info)

    monkeypatch.setattr(watcher, "Watcher", Recording)
    experiments = experiments_of(CONFIG, tmp_path, "seeds=[1, 2]", "grid.layers_per_block=[2]", "epochs=1")
    run(experiments, SweepFolder(str(tmp_path / "ray_results"), "seen"))
    ids = {(e.settings.filters_per_layer, e.settings.seed): e.settings.trial_id for e in experiments}
    expected = [
        {"trial_id": ids[(k,), seed], "filters_per_layer": [k], "seed": seed} for k in (4, 6) for seed in (1, 2)
    ]
    assert sorted(configs, key=lambda config: (config["filters_per_layer"], config["seed"])) == expected


def test_a_finished_trial_keeps_its_best_weights_and_the_state_after_its_last_epoch(finished):
    experiments, folder = finished
    for experiment in experiments:
        names = folder.trial(experiment.settings).folder.names()
        assert [name for name in names if not name.startswith("events.")] == ["best.pt", "epoch_0003.pt", "record.json"]


def test_finished_trials_never_run_again(finished):
    experiments, folder = finished
    records = [folder.trial(e.settings).folder.local_path / "record.json" for e in experiments]
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in records]
    assert run(experiments, folder) == {}
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in records] == before


def test_a_grid_that_grew_runs_only_what_is_missing(finished, tmp_path):
    experiments, folder = finished
    record = folder.trial(experiments[0].settings).folder.local_path / "record.json"
    before = record.stat().st_ino
    grown = experiments_of(CONFIG, tmp_path, "grid.layers_per_block=[1, 2, 3]")
    assert run(grown, folder) == {}
    assert all(folder.trial(e.settings).is_finished() for e in grown)
    assert record.stat().st_ino == before


def test_a_part_of_the_sweep_run_again_leaves_the_others_in_it(finished):
    experiments, folder = finished
    before = folder.experiments()
    assert run(experiments[:1], folder, keep_others=True) == {}
    assert folder.experiments() == before


def test_experiments_that_share_a_trial_train_once_and_each_have_their_file(ray_here, tmp_path):
    from tune_cnn.sweep.export import export

    one = experiments_of(CONFIG, tmp_path, "grid.layers_per_block=[1]", "grid.filters_per_layer=[[4]]")
    twin = [Experiment("twin", one[0].settings, one[0].resources)]
    folder = SweepFolder(str(tmp_path / "ray_results"), "shared")
    run([*one, *twin], folder)
    files, unfinished, missing, _ = export(folder, tmp_path / "results")
    assert [path.name for path in files] == ["tiny_K4_L1.json", "twin.json"]
    assert (unfinished, missing) == ([], {})
    first, second = (json.loads(path.read_text()) for path in files)
    assert first["results"] == second["results"]
    assert (first["config"]["run_name"], second["config"]["run_name"]) == ("tiny_K4_L1", "twin")
    assert len(folder.trials.names()) == 1


def test_an_interrupted_trial_continues_from_its_checkpoint_bit_for_bit(ray_here, tmp_path):
    (experiment,) = experiments_of(CONFIG, tmp_path, "grid.layers_per_block=[2]", "grid.filters_per_layer=[[4]]")
    folder = SweepFolder(str(tmp_path / "ray_results"), "resumed")
    begun = Trial(experiment.settings, data.load(experiment.settings.data))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begun.run_epoch()
    torch.set_num_threads(threads)
    folder.trial(experiment.settings).save_checkpoint(1, begun.state_dict())

    run([experiment], folder)
    results, summary = folder.trial(experiment.settings).record()
    assert results.first_difference(alone(experiment.settings).history) is None
    assert summary["epoch_durations_s"][0] == round(begun.epoch_durations_s[0], 3)  # the epoch was not run again


def test_an_interrupted_sweep_leaves_the_ray_of_its_process_to_the_next_one(ray_here, tmp_path):
    class Interrupting(Callback):
        def on_trial_result(self, **_: object) -> None:
            raise KeyboardInterrupt

    experiments = experiments_of(CONFIG, tmp_path, "epochs=500")
    with pytest.raises(KeyboardInterrupt) as kept:  # with its traceback, as a notebook keeps it
        run(experiments, SweepFolder(str(tmp_path / "ray_results"), "interrupted"), callbacks=[Interrupting()])
    deadline = time.monotonic() + 60
    while ray_here.available_resources().get("CPU") != 4:
        assert time.monotonic() < deadline, f"still occupied: 4 - {ray_here.available_resources().get('CPU')} cores"
        time.sleep(0.2)
    assert kept.tb


def test_a_reused_actor_gives_the_numbers_of_a_fresh_one(finished):
    # In the actor itself, without Ray around it: one object, four trials.
    from ray import tune

    from tune_cnn.sweep.trainable import CnnTrainable, TrialPlan

    experiments, folder = finished
    again = SweepFolder(str(folder.folder.local_path.parent), "reused")
    plans = {e.settings.trial_id: TrialPlan(e.settings, 1, 0.0) for e in experiments}
    images = {e.settings.data: data.load(e.settings.data) for e in experiments}
    actor = None
    for experiment in experiments:
        config = {"trial_id": experiment.settings.trial_id}
        if actor is None:
            actor = tune.with_parameters(CnnTrainable, plans=plans, images=images, folder=again, overview=[])(
                config=config
            )
        else:
            assert actor.reset_config(config)
        while actor.step()["stop_reason"] is None:
            pass
        ended = weakref.ref(actor.trial)
        actor.trial = None
        gc.collect()
        assert ended() is None, "a GPU's memory would stay taken"
        fresh, _ = folder.trial(experiment.settings).record()
        reused, _ = again.trial(experiment.settings).record()
        assert fresh.first_difference(reused) is None


@pytest.mark.parametrize(("share", "expected"), [(0.5, 4), (0.75, 2)])
def test_fractions_of_two_gpus_decide_how_many_trials_run_at_once(ray_here, tmp_path, monkeypatch, share, expected):
    # Trials far longer than the starts take; stopped when as many run as may, and no other has come since.
    experiments = experiments_of(
        CONFIG, tmp_path, f"resources.gpus_per_trial={share}", "epochs=5000", "early_stopping=null"
    )
    at_once: set[str] = set()
    reached: list[float] = []
    as_asked = TrialStopper.__call__

    def is_over() -> bool:
        return bool(reached) and time.monotonic() - reached[0] > 5

    def started(self: Progress, label: str) -> None:
        if not is_over():
            at_once.add(label)
        if len(at_once) == expected:
            reached.append(time.monotonic())

    monkeypatch.setattr(Progress, "started", started)
    monkeypatch.setattr(TrialStopper, "__call__", lambda *args: is_over() or as_asked(*args))
    run(experiments, SweepFolder(str(tmp_path / "ray_results"), "placed"))
    assert len(at_once) == expected


def test_a_request_that_no_node_can_meet_is_refused_before_anything_starts(ray_here, tmp_path):
    experiments = experiments_of(CONFIG, tmp_path, "resources.gpus_per_trial=3")
    folder = SweepFolder(str(tmp_path / "ray_results"), "refused")
    with pytest.raises(ResourceError, match=r"asks for 1 cores and 3 GPUs.*4 cores and 2 GPUs.*gpus_per_trial=auto"):
        run(experiments, folder)
    assert folder.trials.names() == []


def test_a_diverged_trial_ends_alone_and_its_json_is_strict(ray_here, tmp_path):
    from tune_cnn.sweep.export import export

    experiments = experiments_of(
        "run_name: lr{lr}\ngrid: {lr: [1e-3, 1e30]}\n" + CONFIG.partition("\n  layers_per_block: [1, 2]\n")[2], tmp_path
    )
    folder = SweepFolder(str(tmp_path / "ray_results"), "diverged")
    assert run(experiments, folder) == {}
    reasons = {e.name: folder.trial(e.settings).record()[1]["stop_reason"] for e in experiments}
    assert set(reasons.values()) == {"epochs", "diverged"}
    for path in export(folder, tmp_path / "results")[0]:
        json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_an_error_that_repeats_is_final_and_stops_no_other_trial(ray_here, tmp_path, monkeypatch):
    experiments = experiments_of(CONFIG, tmp_path, "grid.filters_per_layer=[[4]]", "grid.layers_per_block=[1]")
    (bad,) = experiments_of(CONFIG, tmp_path, "grid.filters_per_layer=[[6]]", "grid.layers_per_block=[1]", "epochs=2")
    real_load = data.load

    def load_with_a_wrong_label(source, progress=False):
        images = real_load(source, progress)
        if source.seed == 1:
            images.train.labels[5] = 99
        return images

    monkeypatch.setattr(data, "load", load_with_a_wrong_label)
    bad_settings = replace(bad.settings, data=replace(bad.settings.data, seed=1))
    experiments.append(Experiment("bad", bad_settings, bad.resources))
    folder = SweepFolder(str(tmp_path / "ray_results"), "failed")
    failures = run(experiments, folder)
    assert list(failures) == [bad_settings.trial_id]
    assert "99" in failures[bad_settings.trial_id]
    assert failures[bad_settings.trial_id].startswith("epoch 1: IndexError")
    assert folder.trial(experiments[0].settings).is_finished()
    assert "Traceback" in (folder.trial(bad_settings).folder.local_path / "error.txt").read_text()


@pytest.mark.slow
def test_who_waits_sees_ray_start_then_batches_of_long_epochs(ray_here, tmp_path, capsys):
    text = CONFIG.replace(
        "{source: shapes, in_size: [3, 8, 8], train_images: 100,", "{source: shapes, train_images: 6000,"
    )
    change = ["grid.filters_per_layer=[[48]]", "grid.layers_per_block=[3]", "bs_train=50", "epochs=1", "batches=1000"]
    assert run(experiments_of(text, tmp_path, *change), SweepFolder(str(tmp_path / "ray_results"), "long")) == {}
    lines = capsys.readouterr().err.splitlines()
    shown = [next(n for n, line in enumerate(lines) if re.search(pattern, line)) for pattern in (
        "^starting Ray$", "^waiting for the first batches$", r"^K48_L3_\w+  batch \d+/102 of epoch 1$", "  epoch 1/1  ",
    )]  # fmt: skip
    assert shown == sorted(shown)


def test_a_sweep_leaves_alone_what_begins_beside_it_in_the_ray_of_its_user(ray_here):
    with connected(ClusterOptions(), 0):
        group = ray_here.util.placement_group([{"CPU": 1}])
    assert ray_here.util.placement_group_table(group)["state"] != "REMOVED"
    ray_here.util.remove_placement_group(group)
