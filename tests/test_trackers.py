"""Experiment trackers: what MLflow and Weights & Biases are told of a sweep, and what happens when they fail."""

import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune import Callback

from tune_cnn.cli import main
from tune_cnn.errors import ConfigError
from tune_cnn.sweep.trackers import Guarded, tracker

CONFIG = """
run_name: t_L{L}
grid: {layers_per_block: [1, 2]}
settings: {seed: 1, epochs: 2, bs_train: 20, filters_per_layer: [4], hidden_dims: [8]}
data: {source: shapes, in_size: [3, 8, 8], train_images: 100, test_images: 20}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))  # no key of the user's
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    Path("tracked.yaml").write_text(CONFIG)
    return "tracked.yaml"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_and_wandb_get_a_run_a_trial(config, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(["sweep", config, "--track", "mlflow", "--track", "wandb", "--cpus", "2"]) == 0
    database = sqlite3.connect("runs.db")
    assert ("tracked",) in database.execute("select name from experiments").fetchall()
    layers = database.execute("select value from params where key = 'layers_per_block'").fetchall()
    assert sorted(layers) == [("1",), ("2",)]
    assert database.execute("select count(*) from metrics where key = 'validation_accuracy'").fetchone() == (4,)
    assert database.execute("select count(*) from metrics where key = 'test_accuracy'").fetchone() == (2,)
    runs = database.execute("select name, status from runs order by name").fetchall()
    assert [(name[:6], status) for name, status in runs] == [("K4_L1_", "FINISHED"), ("K4_L2_", "FINISHED")]
    assert len(list(Path("wandb").glob("offline-run-*/*.wandb"))) == 2


def test_a_tracker_that_is_not_installed_or_has_no_key_is_told_before_the_start(config, monkeypatch):
    with pytest.raises(ConfigError, match="run wandb login, or set WANDB_MODE=offline"):
        tracker("wandb", "tracked")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"not installed; pip install 'tune_cnn\[wandb\]'"):
        tracker("wandb", "tracked")


def test_a_tracker_is_set_up_once_and_before_the_start(monkeypatch):
    set_up = []

    class Logger(Callback):
        def __init__(self, **_):
            super().__init__()

        def setup(self, **_):
            set_up.append(self)

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace())
    monkeypatch.setattr("ray.air.integrations.mlflow.MLflowLoggerCallback", Logger)
    guarded = Guarded(tracker("mlflow", "tracked"))
    assert len(set_up) == 1
    guarded.setup(stop=None, num_samples=1)
    assert len(set_up) == 1


def test_a_callback_that_cannot_be_set_up_is_told_and_ends_no_sweep(capsys):
    class Logger(Callback):
        def setup(self, **info):
            raise ConnectionError("no server")

    Guarded(Logger()).setup(stop=None)
    assert "warning: Logger has failed, and the sweep goes on (ConnectionError: no server)" in capsys.readouterr().err


def test_a_trial_that_has_failed_for_good_is_a_failed_run():
    ended = []

    class Logger(Callback):
        def on_trial_complete(self, iteration, trials, trial, **info):
            ended.append("complete")

        def on_trial_error(self, iteration, trials, trial, **info):
            ended.append("error")

    guarded = Guarded(Logger())
    for last_result in ({"stop_reason": "epochs"}, {"failure": "epoch 1: ValueError: no"}, None):
        guarded.on_trial_complete(iteration=1, trials=[], trial=SimpleNamespace(last_result=last_result))
    assert ended == ["complete", "error", "complete"]
