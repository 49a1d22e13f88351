"""The Tune stopper agrees with the rule that ends a training, and remembers nothing."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_cnn.sweep.stopping import PlateauStopper
from tune_cnn.train_results import EpochResult, FitResult


def report(history: FitResult, epochs: int, early_stopping: int | None) -> dict[str, object]:
    """What a trial reports after an epoch, as far as the stopper reads it."""
    return {
        "epoch": history.num_epochs,
        "epochs": epochs,
        "early_stopping": early_stopping,
        "epochs_without_improvement": history.epochs_without_improvement,
        "diverged": not history.is_finite,
    }


def history_of(accuracies: list[float], loss: float = 2.3) -> FitResult:
    history = FitResult.empty()
    for accuracy in accuracies:
        history = history.with_epoch(EpochResult([loss], 10.0), EpochResult([loss], accuracy))
    return history


@pytest.mark.parametrize(
    ("accuracies", "loss", "early_stopping", "stops"),
    [
        ([10, 20, 30], 2.3, 2, False),
        ([30, 20, 30], 2.3, 2, True),  # as good as the best is no improvement
        ([30, 20, 31, 20], 2.3, 2, False),
        ([30, 20, 20, 20], 2.3, None, False),
        ([10, 20, 30, 40, 50], 2.3, 2, True),  # the last epoch
        ([10], float("nan"), None, True),
        ([10], float("inf"), 2, True),
    ],
)
def test_a_trial_stops_on_a_plateau_after_its_last_epoch_or_when_it_diverges(accuracies, loss, early_stopping, stops):
    history = history_of(accuracies, loss)
    assert PlateauStopper()("trial", report(history, 5, early_stopping)) is stops


def test_a_trial_that_failed_for_good_stops_although_it_reports_no_epoch():
    assert PlateauStopper()("trial", {"done": True, "failure": "epoch 1: IndexError"}) is True


@given(
    accuracies=st.lists(st.integers(0, 4).map(float), min_size=1, max_size=12),
    diverges=st.booleans(),
    epochs=st.integers(1, 14),
    early_stopping=st.none() | st.integers(1, 6),
)
def test_it_agrees_with_the_history_of_any_training(accuracies, diverges, epochs, early_stopping):
    history = history_of(accuracies, float("nan") if diverges else 2.3)
    expected = history.stop_reason(epochs, early_stopping) is not None
    assert PlateauStopper()("trial", report(history, epochs, early_stopping)) is expected


def test_a_pickled_stopper_decides_alike_and_no_trial_changes_it():
    stopper = PlateauStopper()
    stopping, going = report(history_of([9, 1, 1]), 30, 2), report(history_of([1, 2, 3]), 30, 2)
    before = pickle.dumps(stopper)
    for trial, result in (("one", stopping), ("two", going), ("one", going)):
        stopper(trial, result)
    assert pickle.dumps(stopper) == before
    restored = pickle.loads(before)
    assert vars(restored) == {}
    assert (restored("one", stopping), restored("one", going)) == (True, False)


def test_one_trial_that_stops_stops_no_other():
    stopper = PlateauStopper()
    stopper("one", report(history_of([9, 1, 1]), 30, 2))
    assert stopper.stop_all() is False
