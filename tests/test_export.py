"""Every experiment that has begun gets its JSON file."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_sweep import train, write_config

from tune_cnn import data
from tune_cnn.cli import main
from tune_cnn.result_files import load_experiment, load_result_file
from tune_cnn.results import export
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.train_results import FitResult

SETTINGS = Settings(seed=42, filters_per_layer=(32,), reg=2e-3, early_stopping=None)
SHAPES = Settings(seed=0, data=DataSettings(source="shapes", in_size=(3, 8, 8), train_images=100, test_images=30))
RESULTS = FitResult(2, [2.3, float("nan")], [10.0, 20.0], [2.3, 2.2], [11.0, 12.0])


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(str(tmp_path / "ray_results"), "sweep")
    folder.save_experiments({"exp1_1_K32_L2": SETTINGS, "exp1_2_L2_K32": SETTINGS, "shapes": SHAPES})
    return folder


def finish(folder: SweepFolder, settings: Settings) -> None:
    folder.trial(settings).finish(RESULTS, {"id": settings.trial_id, "test_accuracy": 12.5}, {})


def test_experiments_that_share_a_trial_each_get_a_file_under_their_own_name(folder, tmp_path):
    finish(folder, SETTINGS)
    found = export(folder, tmp_path / "results")
    files = found.files
    assert files == [tmp_path / "results" / "exp1_1_K32_L2.json", tmp_path / "results" / "exp1_2_L2_K32.json"]
    assert (found.unfinished, found.missing, found.remarks, found.failed) == ([], {"shapes": None}, [], [])
    assert sorted((tmp_path / "results").iterdir()) == files
    for path in files:
        config, results, trial = load_result_file(path)
        assert config["run_name"] == path.stem
        assert results.first_difference(RESULTS) is None
        assert trial == {"id": SETTINGS.trial_id, "test_accuracy": 12.5}


def test_the_config_repeats_the_run(folder, tmp_path):
    for settings in (SETTINGS, SHAPES):
        finish(folder, settings)
    export(folder, tmp_path / "results")
    config, _ = load_experiment(tmp_path / "results" / "exp1_1_K32_L2.json")
    assert config == {
        "run_name": "exp1_1_K32_L2", "out_dir": str(tmp_path / "results"), "seed": 42, "bs_train": 128, "bs_test": 32,
        "batches": 100, "epochs": 100, "early_stopping": None, "checkpoints": None, "lr": 0.001, "reg": 0.002,
        "filters_per_layer": [32], "layers_per_block": 2, "pool_every": 2, "hidden_dims": [1024], "ycn": False,
        "kw": {},
    }  # fmt: skip
    config, _ = load_experiment(tmp_path / "results" / "shapes.json")
    assert config["kw"] == {"data": {"source": "shapes", "in_size": [3, 8, 8], "train_images": 100, "test_images": 30}}


def test_a_damaged_record_is_not_exported_and_leaves_an_older_file_alone(folder, tmp_path):
    finish(folder, SHAPES)
    export(folder, tmp_path / "results")
    before = (tmp_path / "results" / "shapes.json").read_bytes()
    folder.trial(SHAPES).folder.write("record.json", b'{"config": {}}')
    found = export(folder, tmp_path / "results")
    assert (found.files, found.unfinished) == ([], [])
    assert (tmp_path / "results" / "shapes.json").read_bytes() == before


# Unfinished trials


def test_an_unfinished_trial_is_exported_as_it_stands_until_its_result_replaces_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    experiments = write_config(tmp_path)
    sweep = SweepFolder("ray_results", "tiny")
    train(experiments, sweep)  # what they will be
    assert main(["export", "tiny", "--out", "whole"]) == 0
    whole = {e.name: load_result_file(f"whole/{e.name}.json") for e in experiments}
    shutil.rmtree("ray_results")
    train(experiments, sweep, interrupted_after=1)
    capsys.readouterr()

    assert main(["status", "tiny"]) == 0
    rows = capsys.readouterr().out.splitlines()
    name, settings = experiments[0].name, experiments[0].settings
    best = f"{whole[name][1].test_acc[0]:.2f}"
    row = next(row.split() for row in rows if row.startswith(sweep.trial(settings).label))
    assert (row[3:7], row[8]) == (["1", best, "1", "-"], "unfinished:")

    assert main(["export", "tiny"]) == 0
    assert "unfinished, exported as they stand: tiny_L1_K4, tiny_L1_K6\n" in capsys.readouterr().err
    _, history, facts = load_result_file(f"results/{name}.json")
    assert history.first_difference(whole[name][1].first(1)) is None
    assert (facts["unfinished"], facts["stop_reason"], facts["best_epoch"]) == (True, None, 1)
    train([replace(experiments[0], name="one", settings=replace(settings, epochs=1))], SweepFolder("other", "one"))
    assert main(["export", "other/one", "--out", "one"]) == 0
    ended = load_result_file("one/one.json")[2]
    assert [facts[key] for key in MEASURED] == [ended[key] for key in MEASURED]
    assert facts["diagnosis" if "diagnosis" in ended else "device"]

    train(experiments, sweep)
    assert main(["export", "tiny"]) == 0
    _, history, facts = load_result_file(f"results/{name}.json")
    assert history.first_difference(whole[name][1]) is None
    assert facts["test_accuracy"] == whole[name][2]["test_accuracy"]
    assert "unfinished" not in facts


MEASURED = ("test_accuracy", "test_loss", "confusion", "best_validation_accuracy", "parameters", "images")


def test_without_images_or_while_a_sweep_runs_the_test_set_is_not_measured(image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    experiments = write_config(tmp_path)
    settings = replace(experiments[0].settings, data=data.resolve(DataSettings("image_folder", str(image_folder))))
    sweep = SweepFolder("ray_results", "tiny")
    train([replace(experiments[0], settings=settings)], sweep, interrupted_after=1)

    with monkeypatch.context() as patch:
        patch.setattr("tune_cnn.results.running", lambda folder: "process 7 on box")
        assert main(["export", "tiny"]) == 0
    assert capsys.readouterr().err.splitlines()[1:] == [
        "the test set of unfinished trials is not measured: process 7 on box is running the sweep"
    ]
    assert load_result_file("results/tiny_L1_K4.json")[2]["test_accuracy"] is None

    shutil.rmtree(image_folder)
    assert main(["export", "tiny"]) == 0
    (remark,) = capsys.readouterr().err.splitlines()[1:]
    assert remark.startswith(f"the test set of unfinished trials is not measured: {image_folder}")
    _, history, facts = load_result_file("results/tiny_L1_K4.json")
    assert (history.num_epochs, facts["unfinished"], facts["test_accuracy"]) == (1, True, None)
    assert facts["parameters"] > 0


def test_an_unfinished_trial_whose_checkpoint_does_not_fit_is_exported_without_a_test(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    experiments, sweep = write_config(tmp_path)[:1], SweepFolder("ray_results", "tiny")
    train(experiments, sweep, interrupted_after=1)
    trial = sweep.trial(experiments[0].settings)
    trial.save_checkpoint(1, {**trial.newest_state(), "trainer": {}})
    capsys.readouterr()
    assert main(["export", "tiny"]) == 0
    assert f"is not measured: {trial.label}: the checkpoint does not fit (" in capsys.readouterr().err
    assert load_result_file("results/tiny_L1_K4.json")[1].num_epochs == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["status", "sweep"], "reading the trials"),
        (["export", "sweep"], "writing the result files"),
        (["report", "sweep"], "drawing the figures"),
        (["report", "sweep"], "writing the report"),
        (["compare", "sweep", "ray_results/sweep"], "reading sweep"),
        (["plot"], "drawing the figures"),
    ],
)
def test_no_command_is_silent_over_a_large_sweep(
    folder: SweepFolder,
    command: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finish(folder, SETTINGS)
    monkeypatch.chdir(Path(str(folder)).parents[1])
    assert main(["export", "sweep"]) == 0
    capsys.readouterr()
    read = Folder.read
    monkeypatch.setattr(Folder, "read", lambda *given: (time.sleep(0.05), read(*given))[1])  # as of thousands of trials
    monkeypatch.setattr("tune_cnn.waiting.REMIND_S", 0.01)
    main(command)
    assert f"{told} (" in capsys.readouterr().err
