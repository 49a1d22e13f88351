"""Whole sweeps on a small Ray of this process: what they leave, share, reuse, refuse and place."""

import gc
import json
import re
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ray.tune import Callback
from sweep_process import undisturbed

from tune_cnn import data
from tune_cnn.diagnosis import diagnose
from tune_cnn.results import export
from tune_cnn.sweep import tune_run
from tune_cnn.sweep.cluster import ClusterOptions, connected
from tune_cnn.sweep.config.load import Experiment, load_experiments
from tune_cnn.sweep.live_table import Progress
from tune_cnn.sweep.plan import make_plan
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trainable import has_ended

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


class Recording(Callback):
    """Remembers what Tune knows of each trial."""

    def __init__(self) -> None:
        self.configs: list[dict[str, Any]] = []

    def on_trial_start(self, iteration, trials, trial, **info):
        self.configs.append(trial.config)


class Finished(NamedTuple):
    """A finished sweep of four trials, one of which has a second name, and what Tune knew of them."""

    experiments: list[Experiment]
    folder: SweepFolder
    configs: list[dict[str, Any]]


@pytest.fixture(scope="module")
def finished(ray_here, tmp_path_factory) -> Finished:
    base = tmp_path_factory.mktemp("finished")
    experiments = experiments_of(CONFIG, base)
    folder, recording = SweepFolder(str(base / "ray_results"), "tiny"), Recording()
    assert run([*experiments, replace(experiments[0], name="twin")], folder, callbacks=[recording]) == {}
    return Finished(experiments, folder, recording.configs)


def test_tune_sees_the_hyperparameters_that_differ(finished):
    assert sorted(finished.configs, key=lambda config: (config["filters_per_layer"], config["layers_per_block"])) == [
        {"trial_id": e.settings.trial_id, "filters_per_layer": [k], "layers_per_block": depth}
        for e, (k, depth) in zip(finished.experiments, [(4, 1), (4, 2), (6, 1), (6, 2)], strict=True)
    ]


def test_a_sweep_equals_single_trials_bit_for_bit(finished):
    experiments, folder, _ = finished
    for experiment in experiments:
        results, summary = folder.trial(experiment.settings).record()
        trial = undisturbed(experiment.settings)
        assert results.first_difference(trial.history) is None
        assert summary["test_accuracy"] == trial.test_result.accuracy
        assert summary["threads"] == 1
        assert summary["diagnosis"] == diagnose(experiment.settings, trial.images.train).to_json()


def test_a_part_of_the_sweep_run_again_leaves_the_others_in_it(finished):
    experiments, folder, _ = finished
    before = folder.experiments()
    assert run(experiments[:1], folder, keep_others=True) == {}
    assert folder.experiments() == before


def test_experiments_that_share_a_trial_train_once_and_each_have_their_file(finished, tmp_path):
    folder = finished.folder
    found = export(folder, tmp_path)
    files = found.files
    assert [path.stem for path in files] == ["tiny_K4_L1", "tiny_K4_L2", "tiny_K6_L1", "tiny_K6_L2", "twin"]
    assert (found.unfinished, found.missing) == ([], {})
    first, twin = (json.loads(path.read_text()) for path in (files[0], files[-1]))
    assert first["results"] == twin["results"]
    assert (first["config"]["run_name"], twin["config"]["run_name"]) == ("tiny_K4_L1", "twin")
    assert len(folder.trials.names()) == 4


def test_a_callback_that_fails_is_told_once_and_changes_nothing(ray_here, tmp_path, capsys):
    class Failing(Callback):
        def setup(self, **info):
            self.reason = "no such server"

        def on_trial_result(self, iteration, trials, trial, result, **info):
            raise ConnectionError(self.reason)

        def on_trial_complete(self, iteration, trials, trial, **info):
            raise RuntimeError(self.reason)

    experiments, folder = experiments_of(CONFIG, tmp_path)[:2], SweepFolder(str(tmp_path / "ray_results"), "tiny")
    assert run(experiments, folder, callbacks=[Failing()]) == {}
    said = capsys.readouterr().err
    assert said.count("Failing has failed, and the sweep goes on (ConnectionError: no such server)\n") == 1
    assert "RuntimeError" not in said
    for experiment in experiments:
        assert said.count(f"{folder.trial(experiment.settings).label}  finished 3 of 3 epochs") == 1


def test_an_interrupted_sweep_leaves_the_ray_of_its_process_to_the_next_one(ray_here, tmp_path):
    class Interrupting(Callback):
        def on_trial_result(self, **_: object) -> None:
            raise KeyboardInterrupt

    experiments = experiments_of(CONFIG, tmp_path, "epochs=500", "grid.layers_per_block=[1]")
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

    experiments, folder, _ = finished
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
    settled_s = 5 if expected < len(experiments) else 0

    def is_over() -> bool:
        return bool(reached) and time.monotonic() - reached[0] > settled_s

    def started(self: Progress, label: str) -> None:
        if not is_over():
            at_once.add(label)
        if len(at_once) == expected:
            reached.append(time.monotonic())

    monkeypatch.setattr(Progress, "started", started)
    monkeypatch.setattr(tune_run, "has_ended", lambda *args: is_over() or has_ended(*args))
    run(experiments, SweepFolder(str(tmp_path / "ray_results"), "placed"))
    assert len(at_once) == expected


@pytest.fixture(scope="module")
def troubled(ray_here, tmp_path_factory) -> tuple[dict[str, Experiment], SweepFolder, dict[str, str]]:
    """A sweep of a good trial, of one that diverges and of one that fails; and what the sweep says of failures."""
    base = tmp_path_factory.mktemp("troubled")
    text = CONFIG.replace("[[4], [6]]", "[[4]]").replace("[1, 2]", "[1]\n  lr: [1.0e-3, 1.0e+30]")
    good, diverging = experiments_of(text.replace("L{L}", "{lr}"), base)
    source = replace(good.settings.data, seed=1)
    failing = replace(good, name="failing", settings=replace(good.settings, data=source))
    real_load = data.load

    def load_with_a_wrong_label(source, progress=False):
        images = real_load(source, progress)
        if source.seed == 1:
            images.train.labels[5] = 99
        return images

    folder = SweepFolder(str(base / "ray_results"), "troubled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", load_with_a_wrong_label)
        failures = run([good, diverging, failing], folder)
    return {"good": good, "diverging": diverging, "failing": failing}, folder, failures


def test_a_diverged_trial_ends_alone_and_its_json_is_strict(troubled, tmp_path):
    experiments, folder, _ = troubled
    reasons = [folder.trial(experiments[name].settings).record()[1]["stop_reason"] for name in ("good", "diverging")]
    assert reasons == ["epochs", "diverged"]
    files = export(folder, tmp_path).files
    assert len(files) == 2
    for path in files:
        json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_an_error_that_repeats_is_final_and_stops_no_other_trial(troubled):
    experiments, folder, failures = troubled
    settings = experiments["failing"].settings
    assert list(failures) == [settings.trial_id]
    assert "99" in failures[settings.trial_id]
    assert failures[settings.trial_id].startswith("epoch 1: IndexError")
    assert folder.trial(experiments["good"].settings).is_finished()
    assert "Traceback" in (folder.trial(settings).folder.local_path / "error.txt").read_text()


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
