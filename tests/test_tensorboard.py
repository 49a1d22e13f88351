"""What TensorBoard sees of a trial: each epoch at once, and its hyperparameters before it ends."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG, SESSION_END_INFO_TAG, SESSION_START_INFO_TAG

from tune_cnn import models
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.tensorboard import SCALARS, TrialBoard, overview
from tune_cnn.sweep.trial_folder import TrialFolder

SETTINGS = Settings(
    seed=None, filters_per_layer=(32, 64), layers_per_block=2, lr=1e-4, hidden_dims=(), data=DataSettings("shapes")
)
OVERVIEW = overview([SETTINGS])
# What a layout of custom scalars needs: the curves once more, under the sizes that they are compared by.
COMPARISONS = {
    "accuracy_by_depth/K32-64": "validation_accuracy", "loss_by_depth/K32-64": "train_loss",
    "accuracy_by_width/L2": "validation_accuracy", "loss_by_width/L2": "train_loss",
}  # fmt: skip


def result(epoch: int, test_accuracy: float | None = None) -> dict[str, object]:
    return {
        "epoch": epoch, "train_loss": 2.5 - epoch / 8, "validation_loss": 2.75 - epoch / 8,
        "train_accuracy": 8.0 * epoch, "validation_accuracy": 4.0 * epoch, "best_validation_accuracy": 4.0 * epoch,
        "test_accuracy": test_accuracy, "epoch_duration_s": 0.5, "stop_reason": None, "epochs": 30,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> TrialFolder:
    return TrialFolder(Folder(str(tmp_path), "sweep"), SETTINGS)


def events(folder: TrialFolder) -> EventAccumulator:
    """What TensorBoard reads."""
    accumulator = EventAccumulator(str(folder.folder.local_path))
    accumulator.Reload()
    return accumulator


def scalars(folder: TrialFolder) -> dict[str, list[tuple[int, float]]]:
    found = events(folder)
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def hyperparameters(folder: TrialFolder) -> dict[str, object]:
    metadata = events(folder).SummaryMetadata(SESSION_START_INFO_TAG)
    content = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    values = content.session_start_info.hparams
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in values.items()}


def test_each_epoch_is_there_before_the_next_one_begins(folder):
    board = TrialBoard(folder, SETTINGS, OVERVIEW)
    for epoch in (1, 2, 3):
        board.report(result(epoch))
        assert scalars(folder) == {
            tag: [(past, result(past)[key]) for past in range(1, epoch + 1)]
            for tag, key in {**SCALARS, **COMPARISONS}.items()
            if tag != "accuracy/test"
        }


def test_the_test_accuracy_comes_with_the_last_epoch_only(folder):
    board = TrialBoard(folder, SETTINGS, OVERVIEW)
    board.report(result(1))
    board.report(result(2, test_accuracy=62.5))
    assert scalars(folder)["accuracy/test"] == [(2, 62.5)]


def test_hyperparameters_are_there_from_the_start(folder):
    TrialBoard(folder, SETTINGS, OVERVIEW)
    found = hyperparameters(folder)
    shown = {"K of the blocks": "32-64", "L": 2, "conv_layers": 4, "data": "shapes", "lr": 1e-4, "hidden_dims": "[]"}
    assert {key: found[key] for key in shown} == shown
    assert set(found) - set(shown) == {field.name for field in fields(Settings)} - set(shown) - {
        "filters_per_layer", "layers_per_block", "seed", "cuda_graph",
        "model", "model_args", "model_fingerprint",  # only a custom network has these
    }  # fmt: skip


def columns(folder: TrialFolder) -> tuple[list[str], list[str]]:
    """Of the table of hyperparameters: settings, and tags of the metrics."""
    metadata = events(folder).SummaryMetadata(EXPERIMENT_TAG)
    experiment = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content).experiment
    return [info.name for info in experiment.hparam_infos], [info.name.tag for info in experiment.metric_infos]


def test_the_table_has_the_settings_that_differ(folder):
    TrialBoard(folder, SETTINGS, overview([replace(SETTINGS, filters_per_layer=(8,), lr=lr) for lr in (0.1, 0.2)]))
    assert columns(folder)[0] == ["K", "L", "lr"]
    assert set(columns(folder)[1]) <= set(SCALARS)


def test_a_name_has_values_of_one_type_over_all_trials(folder):
    trials = [SETTINGS, replace(SETTINGS, filters_per_layer=(8,), early_stopping=None, seed=1)]
    TrialBoard(folder, SETTINGS, overview(trials))
    assert columns(folder)[0] == ["K of the blocks", "conv_layers", "L", "early_stopping", "K", "seed"]


NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, in_size, out_classes{takes}):
        super().__init__()
"""


@pytest.mark.parametrize("takes", ["", ", filters"])
def test_sizes_of_a_custom_network_are_shown_if_it_has_them(tmp_path, takes):
    (tmp_path / "nets.py").write_text(NETWORK.format(takes=takes))
    settings = models.resolve(Settings(model=f"{tmp_path}/nets.py:Net", model_args={}))
    folder = TrialFolder(Folder(str(tmp_path), "sweep"), settings)
    TrialBoard(folder, settings, overview([settings])).report(result(1))
    assert ("accuracy_by_depth/K64" in scalars(folder)) == ("loss_by_width/L2" in scalars(folder)) == bool(takes)
    assert columns(folder)[0] == (["K", "L"] if takes else [])
    assert ("L" in hyperparameters(folder)) == bool(takes)
    assert "pool_every" not in hyperparameters(folder)


def test_a_custom_network_that_has_changed_since_leaves_its_sizes(tmp_path):
    overview([replace(SETTINGS, model=f"{tmp_path}/gone.py:Net", model_fingerprint="0" * 16)])


def test_a_resumed_trial_appends(folder):
    for epochs in ((1, 2), (3, 4)):
        board = TrialBoard(folder, SETTINGS, OVERVIEW)
        for epoch in epochs:
            board.report(result(epoch))
    assert [step for step, _ in scalars(folder)["loss/train"]] == [1, 2, 3, 4]
    assert hyperparameters(folder)["K of the blocks"] == "32-64"


def test_an_epoch_whose_checkpoint_was_not_kept_is_shown_once(folder):
    TrialBoard(folder, SETTINGS, OVERVIEW).report({**result(1), "earlier_epochs": []})  # its process was killed here
    again = TrialBoard(folder, SETTINGS, OVERVIEW)
    again.report({**result(1), "train_loss": 1.0, "earlier_epochs": []})
    again.report(result(2))
    assert scalars(folder)["loss/train"] == [(1, 1.0), (2, result(2)["train_loss"])]


def test_a_trial_that_lost_its_events_shows_them_all_when_it_is_continued(folder):
    TrialBoard(folder, SETTINGS, OVERVIEW).report({**result(3), "earlier_epochs": [result(1), result(2)]})
    assert [step for step, _ in scalars(folder)["loss/train"]] == [1, 2, 3]


@pytest.mark.parametrize(("reason", "status"), [(None, []), ("epochs", ["STATUS_SUCCESS"])])
def test_a_trial_runs_until_a_result_tells_why_it_stops(folder, reason, status):
    board = TrialBoard(folder, SETTINGS, OVERVIEW)
    board.report({**result(1), "stop_reason": reason})
    ended = events(folder).PluginTagToContent("hparams").get(SESSION_END_INFO_TAG)
    ends = [plugin_data_pb2.HParamsPluginData.FromString(ended).session_end_info] if ended else []
    assert [api_pb2.Status.Name(end.status) for end in ends] == status


def test_a_loss_that_is_no_number_is_no_error(folder):
    board = TrialBoard(folder, SETTINGS, OVERVIEW)
    board.report({**result(1), "train_loss": float("nan"), "validation_loss": float("inf")})
    assert str(scalars(folder)["loss/train"]) == "[(1, nan)]"


def test_remote_storage_has_each_epoch_at_once_too(tmp_path):
    folder = TrialFolder(Folder(f"mock://{tmp_path}", "sweep"), SETTINGS)
    board = TrialBoard(folder, SETTINGS, OVERVIEW)
    for epoch in (1, 2):
        board.report(result(epoch))
        (name,) = folder.folder.names()
        local = TrialFolder(Folder(str(tmp_path), f"copy{epoch}"), SETTINGS)
        local.folder.write(name, folder.folder.read(name))
        assert [step for step, _ in scalars(local)["loss/train"]] == list(range(1, epoch + 1))
