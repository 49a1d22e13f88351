"""When a training ends, and how that is said."""

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_cnn import early_stopping as module
from tune_cnn.early_stopping import how_ended, stop_reason, until_stop
from tune_cnn.train_results import FitResult


def history(*validation_accuracies: float) -> FitResult:
    epochs = len(validation_accuracies)
    return FitResult(epochs, [2.5, 2.4] * epochs, [10.0] * epochs, [2.3] * epochs, list(validation_accuracies))


def test_example_in_the_docstring_is_true():
    assert doctest.testmod(module) == (0, 1)


def test_training_ends_after_the_last_epoch():
    assert stop_reason(history(10.0, 20.0), epochs=3, early_stopping=5) is None
    assert stop_reason(history(10.0, 20.0, 30.0), epochs=3, early_stopping=5) == "epochs"


def test_training_ends_on_a_plateau():
    assert stop_reason(history(10.0, 30.0, 20.0, 29.0), epochs=30, early_stopping=3) is None
    assert stop_reason(history(10.0, 30.0, 20.0, 29.0, 30.0), epochs=30, early_stopping=3) == "plateau"


def test_an_improvement_starts_the_count_again():
    assert stop_reason(history(10.0, 9.0, 8.0, 11.0, 10.0, 9.0), epochs=30, early_stopping=3) is None


def test_without_early_stopping_a_plateau_goes_on():
    assert stop_reason(history(*[10.0] * 20), epochs=21, early_stopping=None) is None


def test_a_diverged_training_ends_for_that_reason():
    diverged = history(*[10.0] * 5)._replace(test_loss=[math.nan] * 5)
    assert stop_reason(diverged, epochs=5, early_stopping=1) == "diverged"


def test_nothing_ends_before_the_first_epoch():
    assert stop_reason(FitResult.empty(), epochs=1, early_stopping=1) is None


@given(st.lists(st.sampled_from([10.0, 10.5, 11.0, 12.0]), min_size=1, max_size=12), st.integers(1, 4))
def test_the_rule_is_that_of_a_trainer_that_counts(accuracies, early_stopping):
    """As the loop in the assignment: reset the count on each improvement, stop when it reaches the limit."""
    best, count, ended_at = -1.0, 0, None
    for epoch, accuracy in enumerate(accuracies, start=1):
        best, count = (accuracy, 0) if accuracy > best else (best, count + 1)
        if count >= early_stopping:
            ended_at = epoch
            break
    reasons = [
        stop_reason(history(*accuracies[:epoch]), epochs=100, early_stopping=early_stopping)
        for epoch in range(1, len(accuracies) + 1)
    ]
    assert (reasons.index("plateau") + 1 if "plateau" in reasons else None) == ended_at


@given(st.lists(st.sampled_from([10.0, 10.5, 11.0, math.nan]), max_size=9), st.integers(1, 9), st.integers(1, 3))
def test_a_history_is_cut_where_the_training_would_have_ended(accuracies, epochs, early_stopping):
    whole = history(*accuracies)
    ends = [n for n in range(1, len(accuracies) + 1) if stop_reason(whole.first(n), epochs, early_stopping)]
    assert until_stop(whole, epochs, early_stopping).num_epochs == (ends[0] if ends else len(accuracies))


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (("epochs", 8, 8, 5), "finished 8 of 8 epochs"),
        (("epochs", 1, 1, None), "finished 1 of 1 epoch"),
        (("plateau", 9, 30, 5), "stopped early: no better for 5 epochs"),
        (("plateau", 2, 30, 1), "stopped early: no better for 1 epoch"),
        (("diverged", 4, 30, 5), "diverged: the loss is not a finite number"),
        ((None, 3, 30, 5), "unfinished: 3 of 30 epochs"),
        ((None, 0, 30, None, "epoch 1: IndexError"), "failed: epoch 1: IndexError"),
        (("finished elsewhere", 0, 30, 5), "finished elsewhere"),
    ],
)
def test_how_a_training_ended_is_said_in_plain_words(ended, said):
    assert how_ended(*ended) == said
