import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import easy_images
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from tune_cnn import bench as textbook
from tune_cnn import data, models
from tune_cnn.data import Images
from tune_cnn.data.batches import Batches
from tune_cnn.errors import ResultError
from tune_cnn.result_files import to_strict_json
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.training.state import save_state, state_from_bytes, state_to_bytes
from tune_cnn.trial import Trial

EASY = easy_images.easy_images()
# Improves, falls back, improves again, and ends on a plateau before its last epoch; see the first test.
SMALL = Settings(
    seed=1, bs_train=10, epochs=12, early_stopping=3, lr=3e-3, filters_per_layer=(4,), layers_per_block=2,
    pool_every=1, hidden_dims=(12,), data=easy_images.SETTINGS,
)  # fmt: skip
YCN = replace(SMALL, ycn=True)
# Everything that has a state of its own between two batches, or draws at random.
STATEFUL = replace(
    SMALL, optimizer="sgd", lr=0.05, schedule="cosine", warmup=0.2, label_smoothing=0.1, flip=True, translate=1,
    cutout=2, average=0.8, init="he", epochs=4,
)  # fmt: skip
MUON = replace(YCN, optimizer="muon", lr=0.1, momentum=0.6, epochs=4)
HALF = replace(SMALL, precision="fp16", epochs=3)  # its loss is scaled, by a factor that adapts


def run(settings: Settings, images: Images = EASY) -> Trial:
    trial = Trial(settings, images)
    while trial.stop_reason is None:
        trial.run_epoch()
    return trial


def state_after(settings: Settings, epochs: int) -> dict[str, Any]:
    """What a checkpoint brings back that was written after so many epochs."""
    trial = Trial(settings, EASY)
    for _ in range(epochs):
        trial.run_epoch()
    return state_from_bytes(state_to_bytes(trial.state_dict()), "here")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), MemoryError("host"), RuntimeError("cannot allocate memory")]
)
def test_want_of_memory_says_nothing_of_a_checkpoint(monkeypatch, error):
    """Taken for a fault of the checkpoint, it would let a sweep begin the trial again."""

    def want(*_: object, **__: object) -> None:
        raise error

    state, trial = state_after(SMALL, 1), Trial(SMALL, EASY)
    monkeypatch.setattr("tune_cnn.training.state.TrainingState._rehearse", want)
    with pytest.raises(type(error), match=str(error)):
        trial.load_state_dict(state)
    if not isinstance(error, torch.OutOfMemoryError):  # files are read into the CPU's memory
        monkeypatch.setattr("torch.load", want)
        with pytest.raises(type(error), match=str(error)):
            state_from_bytes(state_to_bytes(state), "here")


def assert_identical(trial: Trial, expected: Trial) -> None:
    assert expected.history.first_difference(trial.history) is None
    assert trial.stop_reason == expected.stop_reason
    assert trial.test_result == expected.test_result
    assert trial.best_weights.keys() == expected.best_weights.keys()
    assert all(torch.equal(value, expected.best_weights[name]) for name, value in trial.best_weights.items())


# The contract: the numbers are those of the loop that one would write by hand


@pytest.fixture(scope="module")
def shapes() -> Images:
    return data.load(DataSettings("shapes", train_images=600, test_images=60))


def record_inputs(model: nn.Module) -> list[Tensor]:
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    return seen


def test_two_epochs_are_those_of_a_loop_written_by_hand(shapes):
    """The settings of exp1_1_K32_L2: the same images in the same order, and losses that differ by rounding only."""
    settings = Settings(
        seed=42, bs_train=50, batches=10_000, epochs=30, early_stopping=5, lr=1e-3, reg=2e-3, filters_per_layer=(32,),
        layers_per_block=2, pool_every=4, hidden_dims=(100, 100), data=DataSettings("shapes"),
    )  # fmt: skip
    torch.manual_seed(42)
    by_hand = textbook.conv_classifier(settings)
    expected_inputs = record_inputs(by_hand)
    train, validation = map(textbook.pairs, (shapes.train, shapes.validation))
    adam = torch.optim.Adam(by_hand.parameters(), lr=1e-3, weight_decay=2e-3)
    loaders = DataLoader(train, 50, shuffle=True), DataLoader(validation, 12)
    expected = [[textbook.pass_by_hand(by_hand, *each) for each in ((loaders[0], adam), loaders[1:])] for _ in range(2)]
    (train_loss, train_correct), (validation_loss, validation_correct) = (
        ([loss for losses, _ in passes for loss in losses], [correct for _, correct in passes])
        for passes in zip(*expected, strict=True)
    )

    trial = Trial(settings, shapes)
    inputs = record_inputs(trial.trainer.model)
    trial.run_epoch()
    trial.run_epoch()

    assert torch.equal(torch.cat(inputs), torch.cat(expected_inputs))
    assert not torch.equal(expected_inputs[0], expected_inputs[11 + 8])  # the second epoch has another order

    history = trial.history
    assert len(history.train_loss) == len(train_loss) == 2 * math.ceil(510 / 50)
    assert history.train_loss[0] == pytest.approx(train_loss[0], rel=1e-6)
    assert history.train_loss[:20] == pytest.approx(train_loss[:20], rel=2e-3)
    assert len(history.test_loss) == 2 * math.ceil(90 / 12)
    assert history.test_loss == pytest.approx(validation_loss, rel=2e-3)
    assert history.train_acc == pytest.approx([count / 5.1 for count in train_correct], abs=0.5)
    assert history.test_acc == pytest.approx([count / 0.9 for count in validation_correct], abs=2.3)


def test_the_same_settings_give_the_same_numbers():
    expected = run(SMALL)
    torch.manual_seed(77)
    assert_identical(run(SMALL), expected)
    assert run(replace(SMALL, seed=2)).history.first_difference(expected.history) is not None


def test_without_a_seed_each_run_is_another():
    unseeded = replace(SMALL, seed=None, epochs=1)
    torch.manual_seed(5)
    assert run(unseeded).history != run(unseeded).history


# Settings that change the training


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd"}, {"schedule": "linear"}, {"warmup": 0.5}, {"label_smoothing": 0.1}, {"flip": True},
        {"translate": 1}, {"cutout": 3}, {"init": "he"}, {"precision": "bf16"}, {"average": 0.5},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_each_changes_the_numbers_that_it_should(changes):
    plain, changed = (run(replace(SMALL, epochs=2, **other)).history for other in ({}, changes))
    assert (plain.train_loss == changed.train_loss) == ("average" in changes)
    assert plain.test_loss != changed.test_loss


def test_smoothed_labels_are_for_training_only():
    """With a learning rate of next to nothing, the weights stay as they are."""
    plain, smoothed = (run(replace(SMALL, epochs=1, lr=1e-30, label_smoothing=s)).history for s in (0.0, 0.2))
    assert plain.test_loss == smoothed.test_loss
    weights = models.build(replace(SMALL, seed=None)).state_dict()
    torch.manual_seed(1)
    network = models.build(SMALL)
    assert network.state_dict().keys() == weights.keys()
    images, labels = default_collate(textbook.pairs(EASY.train))
    with torch.no_grad():
        expected = nn.functional.cross_entropy(network(images), labels, label_smoothing=0.2).item()
    assert np.mean(smoothed.train_loss) == pytest.approx(expected, rel=1e-4)


def test_low_precision_gives_nearly_the_same_losses():
    exact, low = (run(replace(SMALL, epochs=1, precision=precision)).history for precision in ("fp32", "bf16"))
    assert exact.train_loss != low.train_loss
    assert exact.train_loss == pytest.approx(low.train_loss, rel=0.02)


def test_evaluation_averages_the_weights_of_all_batches():
    settings = replace(SMALL, average=0.5, batches=3, epochs=1)
    trial = Trial(settings, EASY)
    weights = []
    step = trial.trainer.optimizer.step
    bias = trial.trainer.model.classifier[-1].bias

    def recorded_step(*arguments: Any) -> None:
        step(*arguments)
        weights.append(bias.detach().clone())

    trial.trainer.optimizer.step = recorded_step
    trial.run_epoch()
    # The first average is the first weights; of the n-th, the share n / (n + 10) is kept until that exceeds a half.
    shares = [1.0, max(0.5, 10 / 11), max(0.5, 10 / 12)]
    expected = torch.zeros_like(bias)
    for share, value in zip(shares, weights, strict=True):
        expected += share * (value - expected)
    torch.testing.assert_close(trial.best_weights["classifier.2.bias"], expected)


def test_a_mirrored_image_has_the_same_scores_when_both_are_evaluated():
    settings = replace(SMALL, epochs=1, test_views=2)
    mirrored = EASY._replace(test=EASY.test._replace(images=np.ascontiguousarray(EASY.test.images[:, :, ::-1])))
    assert run(settings).test_result == run(settings, mirrored).test_result
    plain = replace(settings, test_views=1)
    assert run(plain).test_result != run(plain, mirrored).test_result


def test_he_initialisation_has_the_spread_of_the_paper():
    torch.manual_seed(0)
    conv = models.build(Settings(filters_per_layer=(64,), layers_per_block=2, init="he")).feature_extractor[2]
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert not conv.bias.any()


# How a trial ends


def test_a_trial_ends_on_a_plateau():
    """And the other tests may rely on what happens on the way."""
    trial = run(SMALL)
    assert trial.stop_reason == "plateau"
    assert trial.history.epochs_without_improvement == 3
    assert 1 < trial.history.best_epoch == trial.history.num_epochs - 3 < 9
    assert trial.history.test_acc[-1] < max(trial.history.test_acc)


def test_a_trial_ends_after_its_last_epoch():
    trial = run(replace(SMALL, epochs=2))
    assert (trial.stop_reason, trial.history.num_epochs) == ("epochs", 2)


def test_a_trial_that_diverges_ends_at_once():
    trial = run(replace(SMALL, lr=1e30))
    assert (trial.stop_reason, trial.history.num_epochs) == ("diverged", 1)
    assert trial.test_result is not None
    assert json.loads(to_strict_json(trial.summary()))["test_loss"] is None


@pytest.mark.parametrize("settings", [SMALL, YCN, STATEFUL, MUON])
def test_the_test_result_is_that_of_the_best_weights(settings):
    trial = run(settings)
    model = models.build(settings)
    model.load_state_dict(trial.best_weights)
    images, labels = default_collate(textbook.pairs(EASY.test))
    with torch.no_grad():
        scores = model.eval()(images)
    losses = [nn.functional.cross_entropy(s, y).item() for s, y in zip(scores.split(2), labels.split(2), strict=True)]
    assert trial.test_result.losses == pytest.approx(losses, rel=1e-4)
    assert trial.test_result.accuracy == 100 * (scores.argmax(1) == labels).sum().item() / len(labels)
    assert trial.test_predictions.tolist() == scores.argmax(1).tolist()
    # They are those that gave the best validation accuracy.
    images, labels = default_collate(textbook.pairs(EASY.validation))
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).sum().item()
    assert 100 * right / len(labels) == max(trial.history.test_acc)


def test_nothing_is_tested_before_the_end():
    trial = Trial(SMALL, EASY)
    trial.run_epoch()
    assert (trial.stop_reason, trial.test_result, trial.test_predictions) == (None, None, None)


# Stopping and continuing


@pytest.mark.parametrize(
    "settings",
    [SMALL, YCN, replace(SMALL, seed=None), STATEFUL, MUON, HALF],
    ids=["conv", "ycn", "unseeded", "stateful", "muon", "half"],
)
def test_a_trial_continues_from_any_epoch_bit_for_bit(settings):
    torch.manual_seed(8)
    expected = run(settings)
    for epochs in range(expected.history.num_epochs + 1):
        torch.manual_seed(8)
        state = state_after(settings, epochs)
        torch.manual_seed(1234)
        torch.rand(epochs)
        resumed = Trial(settings, EASY)
        resumed.load_state_dict(state)
        assert resumed.history.num_epochs == epochs
        assert (resumed.stop_reason is None) == (epochs < expected.history.num_epochs)
        while resumed.stop_reason is None:
            resumed.run_epoch()
        assert_identical(resumed, expected)
        assert len(resumed.epoch_durations_s) == expected.history.num_epochs


def test_a_state_of_another_trial_is_refused():
    state = state_after(SMALL, 1)
    other = Trial(replace(SMALL, lr=2e-2), EASY)
    with pytest.raises(ResultError, match=r"^lr is 0\.003 there and 0\.02 here$"):
        other.load_state_dict(state)
    del state["settings"]  # as version 0.1.0 wrote it
    with pytest.raises(ResultError, match=f"^it is of trial {SMALL.trial_id}, not of {other.settings.trial_id}$"):
        other.load_state_dict(state)
    Trial(SMALL, EASY).load_state_dict(state)


@pytest.mark.parametrize(
    "settings", [SMALL, replace(SMALL, average=0.8), replace(STATEFUL, schedule="constant", warmup=0)]
)
@pytest.mark.parametrize("ended", [{"epochs": 1}, {"epochs": 3}, {"early_stopping": 1}])
def test_a_finished_trial_continues_to_more_epochs_as_if_it_had_had_them_from_the_start(settings, ended):
    """Whatever ended it, and although its best weights have been tested in between."""
    expected = run(replace(settings, epochs=8, early_stopping=None))
    first = run(replace(expected.settings, **ended))
    assert first.history.num_epochs < 8
    state = state_from_bytes(state_to_bytes(first.state_dict()), "here")
    torch.manual_seed(99)
    longer = Trial(expected.settings, EASY)
    longer.load_state_dict(state)
    assert longer.stop_reason is None
    while longer.stop_reason is None:
        longer.run_epoch()
    assert_identical(longer, expected)


def test_a_schedule_that_depends_on_the_number_of_epochs_is_not_continued_to_another_one():
    state = run(replace(STATEFUL, early_stopping=1)).state_dict()
    Trial(STATEFUL, EASY).load_state_dict(state)
    for schedule in ({"schedule": "linear", "warmup": 0.0}, {"schedule": "constant", "warmup": 0.2}):
        state = run(replace(STATEFUL, epochs=2, **schedule)).state_dict()
        with pytest.raises(ResultError, match=r"^epochs is 2 there and 3 here, and the learning rate depends on it$"):
            Trial(replace(STATEFUL, epochs=3, **schedule), EASY).load_state_dict(state)


def test_a_trial_with_fewer_epochs_than_a_state_has_ends_there_if_the_best_weights_are_of_one_of_them():
    longer = replace(SMALL, early_stopping=None, epochs=7)
    trained = run(longer)
    best = trained.history.best_epoch
    assert 2 < best < 6
    for shorter in ({"epochs": best}, {"epochs": 6}, {"early_stopping": 2}):
        cut = Trial(replace(longer, **shorter), EASY)
        cut.load_state_dict(trained.state_dict())
        expected = run(cut.settings)
        assert_identical(cut, expected)
        assert len(cut.epoch_durations_s) == expected.history.num_epochs < 7
        assert not cut.can_be_continued
    cut = Trial(replace(longer, epochs=best - 1), EASY)
    with pytest.raises(
        ResultError, match=f"^it has the best weights of epoch {best}, and this training ends with epoch"
    ):
        cut.load_state_dict(trained.state_dict())


def change(*keys: Any, to: Any = ...) -> Callable[[dict[str, Any]], None]:
    """Set a part of a state to a value, or to what a function makes of it; or delete it."""

    def spoil(state: dict[str, Any]) -> None:
        for key in keys[:-1]:
            state = state[key]
        if to is ...:
            del state[keys[-1]]
        else:
            state[keys[-1]] = to(state[keys[-1]]) if callable(to) else to

    return spoil


def weights(*further: Any) -> tuple[Any, ...]:
    return ("trainer", "model", *further)


def kept(*further: Any) -> tuple[Any, ...]:
    """What the optimizer keeps for the first weights."""
    return ("trainer", "optimizer", "state", 0, *further)


SPOILED = {
    "nothing of the trainer": change("trainer"),
    "no weights": change(*weights()),
    "a weight is missing": change(*weights("classifier.0.weight")),
    "a weight too many": change(*weights(), to=lambda m: {**m, "more": torch.zeros(1)}),
    "the last weight has another shape": change(*weights("classifier.2.bias"), to=torch.zeros(5)),
    "the last weight has another type": change(*weights("classifier.2.bias"), to=torch.Tensor.double),
    "weights are no mapping": change(*weights(), to=3),
    "no optimizer": change("trainer", "optimizer"),
    "no groups": change("trainer", "optimizer", "param_groups", to=[]),
    "no rate": change("trainer", "optimizer", "param_groups", 0, "lr"),
    "a rate that is a text": change("trainer", "optimizer", "param_groups", 0, "lr", to="high"),
    "momentum of another shape": change(*kept("momentum_buffer"), to=lambda m: m.flatten()),
    "momentum of fewer": change(*kept("momentum_buffer"), to=lambda m: m[:1]),
    "momentum that is a text": change(*kept("momentum_buffer"), to="high"),
    "no random state": change("trainer", "rng"),
    "no random state of the CPU": change("trainer", "rng", "cpu"),
    "a random state that is cut": change("trainer", "rng", "cpu", to=lambda state: state[:100]),
    "a random state of floats": change("trainer", "rng", "cpu", to=torch.Tensor.float),
    "no schedule": change("trainer", "scheduler"),
    "a schedule that has lost its batch": change("trainer", "scheduler", "last_epoch", to="third"),
    "no average": change("trainer", "average"),
    "no history": change("history"),
    "a history of something else": change("history", to=[1, 2]),
    "a curve is missing": change("history", "test_acc"),
    "a curve is short": change("history", "test_acc", to=[]),
    "a curve of texts": change("history", "train_loss", to=lambda losses: list(map(str, losses))),
    "no best weights": change("best_weights"),
    "a best weight is missing": change("best_weights", "classifier.0.weight"),
    "the best weights are numbers": change("best_weights", to=lambda best: dict.fromkeys(best, 1.0)),
    "no durations": change("epoch_durations_s"),
    "durations of other epochs": change("epoch_durations_s", to=[1.0, 2.0]),
}


@pytest.fixture(scope="module")
def undisturbed() -> tuple[bytes, Trial]:
    """A trial of two epochs, and its state after the first."""
    settings = replace(STATEFUL, epochs=2)
    return state_to_bytes(state_after(settings, 1)), run(settings)


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_state_that_does_not_fit_is_refused_and_leaves_no_trace(spoil, undisturbed):
    state, expected = state_from_bytes(undisturbed[0], "here"), undisturbed[1]
    spoil(state)
    trial = Trial(expected.settings, EASY)
    with pytest.raises(ResultError, match=r"."):
        trial.load_state_dict(state)
    while trial.stop_reason is None:
        trial.run_epoch()
    assert_identical(trial, expected)


def test_a_state_without_what_adam_keeps_is_refused():
    for spoil in (change(*kept("exp_avg")), change(*kept("step")), change(*kept("exp_avg_sq"), to=lambda m: m[0])):
        state = state_after(SMALL, 1)
        spoil(state)
        with pytest.raises(ResultError, match=r"."):
            Trial(SMALL, EASY).load_state_dict(state)


@pytest.mark.parametrize("settings", [SMALL, replace(YCN, epochs=2)])
def test_run_continues_from_its_checkpoint_file(tmp_path, capsys, monkeypatch, settings):
    expected = run(settings)
    checkpoint = tmp_path / "trial.pt"
    interrupted = Trial(settings, EASY)
    with monkeypatch.context() as patch:
        patch.setattr("tune_cnn.training.loop.save_state", lambda path, state: (save_state(path, state), 1 / 0))
        with pytest.raises(ZeroDivisionError):
            interrupted.run(checkpoint)
    capsys.readouterr()
    torch.manual_seed(99)
    resumed = Trial(settings, EASY)
    resumed.run(checkpoint)
    continuing = f"*** Continuing from checkpoint file {checkpoint}\n"
    assert capsys.readouterr().out.startswith(f"{continuing}--- EPOCH 2/")
    assert_identical(resumed, expected)
    # The end is saved, too: nothing runs again, and more epochs follow the last one.
    again = Trial(settings, EASY)
    again.run(checkpoint)
    assert "EPOCH" not in capsys.readouterr().out
    assert_identical(again, expected)
    epochs = expected.history.num_epochs + 1
    longer = Trial(replace(settings, epochs=epochs, early_stopping=None), EASY)
    longer.run(checkpoint)
    assert capsys.readouterr().out == f"{continuing}--- EPOCH {epochs}/{epochs} ---\n"
    assert_identical(longer, run(longer.settings))


# What is told about it


def test_summary_is_strict_json_with_the_facts():
    trial = run(YCN)
    summary = json.loads(to_strict_json(trial.summary()), parse_constant=pytest.fail)
    assert summary == trial.summary()
    assert summary["id"] == YCN.trial_id
    assert summary["test_accuracy"] == trial.test_result.accuracy
    assert summary["test_loss"] == pytest.approx(sum(trial.test_result.losses) / 10)
    assert [sum(row) for row in summary["confusion"]] == np.bincount(EASY.test.labels).tolist()
    assert [sum(column) for column in zip(*summary["confusion"], strict=True)] == np.bincount(
        trial.test_predictions, minlength=4
    ).tolist()
    assert sum(summary["confusion"][i][i] for i in range(4)) == trial.test_result.accuracy / 100 * 20
    assert summary["best_epoch"] == trial.history.best_epoch
    assert summary["best_validation_accuracy"] == max(trial.history.test_acc)
    assert summary["stop_reason"] == trial.stop_reason
    assert summary["duration_s"] == pytest.approx(sum(summary["epoch_durations_s"]), abs=0.01)
    assert len(summary["epoch_durations_s"]) == trial.history.num_epochs
    assert summary["parameters"] == sum(weight.numel() for weight in trial.trainer.model.parameters())
    assert summary["class_names"] == ["red", "green", "blue", "grey"]
    assert summary["images"] == {"train": 60, "validation": 30, "test": 20}
    assert summary["majority_accuracy"] == max(np.bincount(EASY.validation.labels)) / 30 * 100
    assert (summary["device"], summary["threads"]) == ("cpu", torch.get_num_threads())
    assert summary["versions"]["torch"] == torch.__version__
    assert "path" not in summary["data"]


def test_before_the_end_the_summary_leaves_the_test_out():
    summary = Trial(SMALL, EASY).summary()
    assert (summary["test_accuracy"], summary["test_loss"], summary["best_epoch"]) == (None, None, 0)
    assert summary["confusion"] is None


def test_confusions_of_very_many_classes_are_left_out():
    trial = Trial(SMALL, EASY._replace(classes=tuple(map(str, range(101)))))
    trial.test_predictions = EASY.test.labels
    assert trial.confusion is None


def test_a_checkpoint_does_not_follow_the_training_that_goes_on(tmp_path: Path):
    trial = Trial(SMALL, EASY)
    trial.run_epoch()
    content = state_to_bytes(trial.state_dict())
    best = {name: value.clone() for name, value in trial.best_weights.items()}
    trial.trainer.train_epoch(Batches(EASY.train, 10), verbose=False)
    assert all(torch.equal(value, trial.best_weights[name]) for name, value in best.items())
    assert state_to_bytes(trial.state_dict()) != content
