"""`tune_cnn.sweep` and `tune_cnn.open_sweep`, and what they give: frames, networks, the report."""

import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
import torch
from sweep_process import undisturbed
from tiny_sweep import train, write_config

import tune_cnn
from tune_cnn import data
from tune_cnn.api import Sweep, open_sweep, sweep
from tune_cnn.cli import main
from tune_cnn.errors import ConfigError, ResultError, StorageError
from tune_cnn.experiments import run_experiment
from tune_cnn.sweep.sweep_folder import SweepFolder

NO_CALLBACKS = "is not a list of instances of ray.tune.Callback, such as [MyCallback()]"


@pytest.fixture
def trained(tmp_path: Path) -> Sweep:
    """`tiny_L1_K4` is finished; `tiny_L1_K6` has one of two epochs."""
    first, second = write_config(tmp_path)
    folder = SweepFolder(str(tmp_path), "tiny")
    train([second], folder, interrupted_after=1)
    train([first], folder)
    folder.save_experiments({e.name: e.settings for e in (first, second)})
    return open_sweep(tmp_path / "tiny")


def test_results_have_a_row_an_experiment_and_what_varies_first(trained):
    results = trained.results
    assert list(results.index) == ["tiny_L1_K4", "tiny_L1_K6"]
    assert list(results)[:3] == ["filters_per_layer", "best_validation_accuracy", "test_accuracy"]
    expected = undisturbed(trained.experiments["tiny_L1_K4"])
    assert results.loc["tiny_L1_K4", "best_validation_accuracy"] == expected.history.best_accuracy
    assert list(results["verdict"] == "unfinished") == [False, True]
    assert list(results["epochs_run"]) == [2, 1]


def test_history_has_a_row_an_epoch(trained):
    expected = undisturbed(trained.experiments["tiny_L1_K4"]).history
    history = trained.history("tiny_L1_K4")
    assert list(history.index) == [1, 2]
    assert list(history["validation_accuracy"]) == expected.test_acc
    half = len(expected.train_loss) // 2
    assert list(history["train_loss"]) == [fmean(expected.train_loss[:half]), fmean(expected.train_loss[half:])]
    assert len(trained.history("tiny_L1_K6")) == 1


@pytest.mark.parametrize("name", ["tiny_L1_K4", "tiny_L1_K6"])
def test_model_has_the_best_weights_and_predicts_as_in_the_test(trained, name):
    model = trained.model(name)
    settings = trained.experiments[name]
    images = data.load(settings.data).test
    batch = torch.from_numpy(images.images.copy()).permute(0, 3, 1, 2) / 255
    assert not model.training
    with torch.no_grad():
        correct = (model(batch).argmax(1) == torch.from_numpy(images.labels)).sum().item()
    if name == "tiny_L1_K4":
        assert 100 * correct / images.count == pytest.approx(trained.results.loc[name, "test_accuracy"])


def test_a_notebook_shows_the_report(trained):
    shown = trained._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "tiny_L1_K6" in shown
    assert "<script" not in shown


def test_what_is_not_there_is_told(trained, tmp_path):
    for ask in (trained.model, trained.history):
        with pytest.raises(ConfigError, match="other: no such experiment; there are tiny_L1_K4, tiny_L1_K6"):
            ask("other")
    files = SweepFolder(str(tmp_path / "new"), "tiny")
    files.save_experiments(trained.experiments)
    for ask, told in ((Sweep(files).model, "no weights yet"), (Sweep(files).history, "no finished epoch yet")):
        with pytest.raises(StorageError, match=rf"L1_K4 has {told} \(its first epoch has not ended\); run the sweep"):
            ask("tiny_L1_K4")
        with pytest.raises(ConfigError, match=r"\['tiny'\]: no such experiment"):
            ask(["tiny"])
    assert Sweep(files).results["test_accuracy"].isna().all()
    files.trial(files.experiments()["tiny_L1_K4"]).save_failure("epoch 1: ValueError: no", "")
    with pytest.raises(StorageError, match=r"has no weights yet \(epoch 1: ValueError: no\); run the sweep"):
        Sweep(files).model("tiny_L1_K4")
    with pytest.raises(StorageError, match="no sweep here"):
        open_sweep(tmp_path / "none")
    with pytest.raises(ConfigError, match="no such file; did you mean quick"):
        sweep("quik", storage=str(tmp_path))
    with pytest.raises(ConfigError, match="epoch: unknown key; did you mean 'epochs'"):
        sweep("quick", settings={"epoch": 1}, storage=tmp_path)
    with pytest.raises(ConfigError, match=r"settings.lr: '\{1, 2\}' is not a number above 0"):
        sweep("quick", settings={"lr": {1, 2}}, storage=tmp_path)
    with pytest.raises(ConfigError, match="'nothing' matches no name; there are quick_K8_L2"):
        sweep("quick", only="nothing", storage=tmp_path)
    with pytest.raises(ConfigError, match=r"^data: 1 problem\n  data.train_images: 3 is not a whole n"):
        sweep("quick", data={"source": "shapes", "train_images": 3}, storage=tmp_path)


def test_damaged_files_of_a_finished_trial_are_told_with_a_remedy_that_helps(trained):
    folder = trained._files.trial(trained.experiments["tiny_L1_K4"]).folder.local_path
    (folder / "best.pt").write_bytes(b"damaged")
    with pytest.raises(StorageError, match=r"best\.pt: gone or damaged; delete this folder, then run"):
        trained.model("tiny_L1_K4")
    (folder / "record.json").write_text("{")
    with pytest.raises(ResultError, match=r"record\.json: damaged .*; the sweep's command runs the trial again"):
        trained.model("tiny_L1_K4")


@pytest.mark.parametrize("first", ["", "import tune_cnn.sweep.config", "import tune_cnn.api", "tune_cnn.open_sweep"])
def test_the_function_has_the_name_of_a_folder_and_stays_callable(first):
    program = f"import tune_cnn\n{first}\ntry: tune_cnn.sweep('quik')\nexcept Exception as error: print(error)\n"
    program += (
        "import tune_cnn.sweep.config.run_names\ntry: tune_cnn.sweep('quik')\nexcept Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("did you mean quick?") == 2


def test_help_shows_the_arguments_and_no_module(capsys):
    help(tune_cnn.sweep)
    shown = " ".join(capsys.readouterr().out.split())
    assert "name: 'str | None' = None, data: 'str | Mapping[str, Any] | None' = None" in shown
    assert "time_budget_s: Stop after so many seconds." in shown
    assert "sweep_folder" not in shown
    assert tune_cnn.sweep is sweep


@pytest.mark.parametrize(
    ("files", "options", "problems"),
    [
        ([], {}, ["files: [] is not a list of values; give one or more in brackets, or leave it out"]),
        (["quick", ["tour"]], {}, ["files[1]: ['tour'] is not a text, or a path"]),
        (["quick"], {"settings": ["epochs=5"]}, ["settings: ['epochs=5'] is not a mapping of names to values"]),
        (["quick"], {"data": 3}, ["data: 3 is not a text, a mapping of names to values, or null"]),
        (["quick"], {"only": 3}, ["only: 3 is not a text, or a list of texts"]),
        (["quick"], {"storage": None}, ["storage: None is not a text, or a path"]),
        (["quick"], {"fresh": "maybe"}, ["fresh: 'maybe' is not true or false"]),
        (["quick"], {"time_budget_s": "20s"}, ["time_budget_s: '20s' is not a number above 0, or null"]),
        (["quick"], {"callbacks": 5}, [f"callbacks: 5 {NO_CALLBACKS}"]),
        (["quick"], {"callbacks": [5]}, [f"callbacks: [5] {NO_CALLBACKS}"]),
        (["quick"], {"callbacks": [str]}, [f"callbacks: [<class 'str'>] {NO_CALLBACKS}"]),
        (
            ["quick"],
            {"cpus": 0, "gpus": -1, "max_concurrent": 2.5},
            [
                "cpus: 0 is not a whole number from 1 up, or null",
                "gpus: -1 is not a whole number from 0 up, or null",
                "max_concurrent: 2.5 is not a whole number from 1 up, or null",
            ],
        ),
    ],
)
def test_wrong_arguments_are_all_told(files, options, problems):
    with pytest.raises(ConfigError) as caught:
        sweep(*files, **options)
    assert str(caught.value).splitlines()[0].startswith("sweep(): ")
    assert caught.value.problems == problems


def test_an_unknown_name_is_no_part_of_the_package():
    with pytest.raises(AttributeError, match="has no attribute 'sweeep'"):
        tune_cnn.sweeep  # noqa: B018


@pytest.mark.slow
def test_a_sweep_from_python_is_that_of_the_command(tmp_path, capsys):
    from ray.tune import Callback

    class Counting(Callback):
        results = 0

        def on_trial_result(self, **info):
            Counting.results += 1

    write_config(tmp_path)
    options = {
        "settings": {"epochs": 3, "grid.filters_per_layer": [[4]]},
        "storage": str(tmp_path / "sweeps"),
        "out": tmp_path / "results",
    }
    found = sweep(tmp_path / "tiny.yaml", **options, callbacks=[Counting()])
    (name,) = found.experiments
    assert found.failures == {}
    assert Counting.results == 3
    assert found.history(name)["validation_accuracy"].tolist() == undisturbed(found.experiments[name]).history.test_acc
    assert (tmp_path / "results" / "tiny_report.html").exists()
    assert "1 trial: 0 done, 0 to continue, 1 new" in capsys.readouterr().err
    sweep(tmp_path / "tiny.yaml", **options)
    assert "1 trial: 1 done" in capsys.readouterr().err


def test_a_tilde_is_the_home_folder(trained, empty_home, monkeypatch):
    write_config(empty_home)
    monkeypatch.chdir(empty_home)
    monkeypatch.setattr("tune_cnn.api.run_sweep", lambda *_, **__: {})
    sweep("~/tiny.yaml", storage=str(Path(trained.folder).parent), name=Path(trained.folder).name, out="~/python")
    assert main(["export", trained.folder, "--out=~/command"]) == 0
    few = {"in_size": [3, 8, 8], "train_images": 100, "test_images": 30, "source": "shapes"}
    run_experiment("one", out_dir="~/notebook", epochs=1, filters_per_layer=[4], layers_per_block=1, data=few)
    assert sorted(p.name for p in empty_home.iterdir() if p.is_dir()) == ["command", "notebook", "python"]
