import json
import math
import os
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tune_cnn import experiments
from tune_cnn.errors import ConfigError, DataError
from tune_cnn.experiments import load_experiment, run_experiment
from tune_cnn.settings import OPTIONAL, Settings, parse_settings
from tune_cnn.train_results import FitResult
from tune_cnn.trial import Trial

SHAPES = {"source": "shapes", "in_size": [3, 8, 8], "train_images": 40, "test_images": 10}
QUICK: dict[str, Any] = {
    "seed": 42, "bs_train": 10, "epochs": 2, "filters_per_layer": [4], "layers_per_block": 1, "hidden_dims": [8],
    "data": SHAPES, "device": "cpu",
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory of its own for each test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(path: str) -> dict[str, Any]:
    """Read a result file as strictly as other readers may."""
    return json.loads(Path(path).read_text(), parse_constant=pytest.fail)


# The file


def test_an_experiment_leaves_its_config_its_history_and_facts():
    run_experiment("exp1_1_K4_L1", **QUICK)
    text = Path("results/exp1_1_K4_L1.json").read_text()
    written = content("results/exp1_1_K4_L1.json")
    assert text == json.dumps(written, indent=2) + "\n"
    assert list(written) == ["config", "results", "trial"]
    assert written["config"] == {
        "run_name": "exp1_1_K4_L1", "out_dir": "./results", "seed": 42, "bs_train": 10, "bs_test": 2, "batches": 100,
        "epochs": 2, "early_stopping": 3, "checkpoints": None, "lr": 0.001, "reg": 0.001, "filters_per_layer": [4],
        "layers_per_block": 1, "pool_every": 2, "hidden_dims": [8], "ycn": False, "kw": {"data": SHAPES},
    }  # fmt: skip
    assert list(written["config"]) == [*signature(run_experiment).parameters]
    assert list(written["results"]) == ["num_epochs", "train_loss", "train_acc", "test_loss", "test_acc"]
    result = FitResult(**written["results"])
    assert (result.num_epochs, len(result.train_loss), len(result.train_acc)) == (2, 2 * 4, 2)
    assert (len(result.test_loss), len(result.test_acc)) == (2 * 3, 2)
    assert written["trial"]["stop_reason"] == "epochs"
    assert os.listdir("results") == ["exp1_1_K4_L1.json"]


def test_defaults_are_those_that_notebooks_know():
    defaults = {name: parameter.default for name, parameter in signature(run_experiment).parameters.items()}
    del defaults["run_name"], defaults["kw"]
    assert defaults == {
        "out_dir": "./results", "seed": None, "bs_train": 128, "bs_test": None, "batches": 100, "epochs": 100,
        "early_stopping": 3, "checkpoints": None, "lr": 1e-3, "reg": 1e-3, "filters_per_layer": [64],
        "layers_per_block": 2, "pool_every": 2, "hidden_dims": [1024], "ycn": False,
    }  # fmt: skip
    settings = Settings().to_json()
    assert {key: value for key, value in defaults.items() if key in settings and key != "bs_test"} == {
        key: value for key, value in settings.items() if key not in ("data", "bs_test", *OPTIONAL)
    }


@pytest.mark.parametrize(("bs_train", "bs_test"), [(128, 32), (50, 12), (3, 1)])
def test_validation_batches_are_a_quarter_of_the_training_batches(bs_train, bs_test):
    run_experiment("run", **{**QUICK, "bs_train": bs_train, "epochs": 1})
    written = content("results/run.json")
    assert written["config"]["bs_test"] == bs_test
    assert len(written["results"]["test_loss"]) == math.ceil(6 / bs_test)


def test_bs_test_can_be_chosen():
    run_experiment("run", **QUICK, bs_test=6)
    assert len(content("results/run.json")["results"]["test_loss"]) == 2 * 1


def test_zero_is_a_seed():
    first, second, other = (
        run_and_load(f"run{number}", **{**QUICK, "seed": seed}) for number, seed in enumerate([0, 0, 1])
    )
    assert first == second != other
    assert load_experiment("results/run0.json")[0]["seed"] == 0


def test_a_loss_that_is_no_number_is_null_and_nan_again_when_read(capsys):
    run_experiment("run", **{**QUICK, "lr": 1e30})
    assert None in content("results/run.json")["results"]["train_loss"]
    _, result = load_experiment("results/run.json")
    assert any(math.isnan(loss) for loss in result.train_loss)
    assert "Test Loss: nan\n" in capsys.readouterr().out


def run_and_load(run_name: str, **settings: Any) -> FitResult:
    run_experiment(run_name, **settings)
    return load_experiment(f"results/{run_name}.json")[1]


@pytest.mark.parametrize(
    "settings",
    [{}, {"ycn": True, "hidden_dims": []}, {"filters_per_layer": [2, 4], "pool_every": 1, "checkpoints": "kept/run"}],
)
def test_the_config_repeats_the_run(settings):
    expected = run_and_load("run", **{**QUICK, **settings})
    config = content("results/run.json")["config"]
    Path("results/run.json").unlink()
    for checkpoint in Path().glob("kept/*"):
        checkpoint.unlink()
    run_experiment(**config)
    assert content("results/run.json")["config"] == config
    assert load_experiment("results/run.json")[1] == expected
    run_experiment(**{**config, **config["kw"], "run_name": "again"})
    assert load_experiment("results/again.json")[1] == expected


def test_values_of_a_notebook_are_the_plain_ones_that_they_equal(folder):
    expected = run_and_load("run", **{**QUICK, "filters_per_layer": [4, 6], "lr": 1e-3})
    trial_id = content("results/run.json")["trial"]["id"]
    run_experiment(
        "run", Path("results"), np.int64(42), np.float64(10), epochs=4 / 2, filters_per_layer=np.array([4, 6]),
        lr=np.float32(1e-3), layers_per_block=np.array(1), hidden_dims=(8,), ycn=np.bool_(False), optimizer="Adam",
        data={**SHAPES, "in_size": (3, 8, 8)}, device="cpu",
    )  # fmt: skip
    assert load_experiment("results/run.json")[1] == expected
    assert content("results/run.json")["trial"]["id"] == trial_id
    assert content("results/run.json")["config"]["kw"] == {"data": SHAPES}


def test_the_config_of_a_folder_of_images_keeps_its_path_only(image_folder):
    run_experiment("run", **{**QUICK, "data": f"image_folder:{image_folder}"})
    assert content("results/run.json")["config"]["kw"] == {
        "data": {"source": "image_folder", "path": str(image_folder)}
    }
    assert content("results/run.json")["trial"]["class_names"] == ["blue", "green", "red"]


def test_cifar10_is_the_default_and_needs_no_word(small_archives):
    small_archives("cifar10")
    run_experiment("run", **{key: value for key, value in QUICK.items() if key != "data"})
    assert content("results/run.json")["config"]["kw"] == {}
    assert content("results/run.json")["trial"]["data"]["source"] == "cifar10"


# What is shown


def test_the_network_the_epochs_and_the_test_are_shown(capsys):
    run_experiment("run", **QUICK)
    out, err = capsys.readouterr()
    trial = content("results/run.json")["trial"]
    assert trial["diagnosis"]["verdict"] in ("trains", "at risk", "will not learn")
    lines = out.splitlines()
    assert lines[0] == "ConvClassifier("
    assert lines[-5:] == [
        "--- EPOCH 1/2 ---",
        "--- EPOCH 2/2 ---",
        f"Test Accuracy: {trial['test_accuracy']:.2f}",
        f"Test Loss: {trial['test_loss']:.3f}",
        "*** Output file results/run.json written",
    ]
    images, *rows = err.rstrip("\n").split("\n")
    assert images.startswith("data: shapes: 10 classes (")
    bars = [row.rpartition("\r")[2] for row in rows]
    assert [bar.split()[0] for bar in bars] == ["train_batch", "test_batch"] * 2 + ["test_batch"]


# Faults


def test_all_faults_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        run_experiment(
            "exp/1", out_dir="", epochs="ten", lr=-1, filters_per_layer=64, ycn="yes", checkpoints=3, device="gpu",
            learning_rate=1e-3, data={"sauce": "shapes"},
        )  # fmt: skip
    lines = str(caught.value).splitlines()
    assert lines[0] == "run_experiment('exp/1'): 10 problems"
    keys = [line.split(":")[0].strip() for line in lines[1:]]
    assert sorted(keys) == sorted(
        ["run_name", "out_dir", "epochs", "lr", "filters_per_layer", "ycn", "checkpoints", "device", "learning_rate",
         "data.sauce"]
    )  # fmt: skip
    assert "  learning_rate: unknown argument; did you mean 'lr'?" in lines
    assert "  epochs: 'ten' is not a whole number from 1 up" in lines
    assert "  filters_per_layer: 64 is not a list of whole numbers from 1 up, such as [64]" in lines
    assert any(line.startswith("  run_name: 'exp/1' cannot be a name; use ") for line in lines)
    assert os.listdir() == []


@pytest.mark.parametrize("name", ["", "../up", "a b", "a..b", ".hidden", "x" * 101, "übung", 3])
def test_a_name_that_cannot_be_a_file_is_refused(name):
    with pytest.raises(ConfigError, match=r"run_name: .* cannot be a name"):
        run_experiment(name, **QUICK)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:x", 3.5, ""])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ConfigError, match=r"device: .*; write cpu, or cuda for a GPU"):
        run_experiment("run", **{**QUICK, "device": device})


def test_a_network_that_cannot_be_built_is_refused_before_the_images_are_loaded(monkeypatch):
    monkeypatch.setattr("tune_cnn.data.load", pytest.fail)
    with pytest.raises(ConfigError, match=r"run_experiment\('run'\): 1 problem\n  4 poolings .* shrink 8x8 images"):
        run_experiment("run", **{**QUICK, "pool_every": 1, "layers_per_block": 4})


def test_a_network_that_is_not_there_is_one_problem():
    with pytest.raises(
        ConfigError, match=r"1 problem\n  model: \S+nets\.py:Wide: cannot be read .*No such.*; its path "
    ):
        run_experiment("run", **{**QUICK, "model": "nets.py:Wide"})


def test_a_fault_of_our_own_is_no_fault_of_the_user(monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ValueError("our bug")

    monkeypatch.setattr(Trial, "run_epoch", broken)
    with pytest.raises(ValueError, match="our bug"):
        run_experiment("run", **QUICK)


def test_folders_that_cannot_be_are_refused_before_the_training(monkeypatch):
    Path("taken").write_text("a file")
    monkeypatch.setattr("tune_cnn.data.load", pytest.fail)
    with pytest.raises(ConfigError) as caught:
        run_experiment("run", out_dir="taken", checkpoints="taken/here/run", **QUICK)
    with pytest.raises(ConfigError, match="out_dir: /proc: cannot be used"):  # which is there
        run_experiment("run", out_dir="/proc", **QUICK)
    assert str(caught.value).splitlines() == [
        "run_experiment('run'): 2 problems",
        "  out_dir: taken: cannot be used (File exists); name another folder",
        "  checkpoints: taken/here: cannot be used (Not a directory); name another folder",
    ]


def test_the_working_folder_need_not_be_writable(tmp_path, monkeypatch):
    monkeypatch.chdir("/proc")
    run_experiment("run", out_dir=str(tmp_path), **QUICK)
    assert (tmp_path / "run.json").exists()


def test_images_that_are_not_there_are_an_error():
    with pytest.raises(ConfigError, match=r"data: '/nowhere' is not a source; write image_folder:/nowhere"):
        run_experiment("run", **{**QUICK, "data": "/nowhere"})
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        run_experiment("run", **{**QUICK, "data": "image_folder:nowhere"})


# Checkpoints


def test_an_interrupted_experiment_continues(monkeypatch, capsys):
    settings = {**QUICK, "epochs": 6, "lr": 1e-2}
    expected = run_and_load("whole", **settings)

    run_epoch = Trial.run_epoch

    def run_three_epochs(trial: Trial, verbose: bool) -> object:
        if trial.history.num_epochs == 3:
            raise KeyboardInterrupt
        return run_epoch(trial, verbose)

    with monkeypatch.context() as patch:
        patch.setattr(Trial, "run_epoch", run_three_epochs)
        with pytest.raises(KeyboardInterrupt):
            run_experiment("run", checkpoints="kept/run", **settings)
    assert os.listdir("kept") == ["run.pt"]
    capsys.readouterr()
    run_experiment("run", checkpoints="kept/run", **settings)
    assert "*** Continuing from checkpoint file kept/run.pt\n" in capsys.readouterr().out
    assert load_experiment("results/run.json")[1] == expected


# The trial


def test_train_gives_the_trial_itself():
    trial = experiments.train(parse_settings({**{k: v for k, v in QUICK.items() if k != "device"}}), device="cpu")
    assert trial.settings.data.classes == 10
    assert trial.history == run_and_load("run", **QUICK)
