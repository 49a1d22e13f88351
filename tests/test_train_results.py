import doctest
import math

import pytest

from tune_cnn import train_results
from tune_cnn.train_results import EpochResult, FitResult, learned_above


def history(*validation_accuracies: float) -> FitResult:
    """A history with these validation accuracies, two training batches and one validation batch an epoch."""
    result = FitResult.empty()
    for epoch, accuracy in enumerate(validation_accuracies):
        result = result.with_epoch(EpochResult([2.5 - epoch, 2.4 - epoch], 10.0 + epoch), EpochResult([2.3], accuracy))
    return result


def test_example_in_the_docstring_is_true():
    assert doctest.testmod(train_results) == (0, 1)


def test_epochs_are_appended():
    first = history(20.0)
    assert first == (1, [2.5, 2.4], [10.0], [2.3], [20.0])
    assert first.with_epoch(EpochResult([1.5, 1.4], 11.0), EpochResult([2.3], 30.0)) == history(20.0, 30.0)
    assert first == history(20.0)  # and is itself as before


def test_the_first_of_equal_epochs_is_the_best():
    result = history(20.0, 35.5, 30.0, 35.5)
    assert (result.best_epoch, result.best_accuracy, result.epochs_without_improvement) == (2, 35.5, 2)


@pytest.mark.parametrize(("best", "classes", "learned"), [(15.0, 10, False), (15.1, 10, True), (52.0, 3, True)])
def test_a_network_that_has_learned_is_beyond_one_and_a_half_times_chance(best: float, classes: int, learned: bool):
    assert (best > learned_above(classes)) == learned


@pytest.mark.parametrize(("best", "images", "learned"), [(15.6, 45, False), (23.5, 45, True), (15.1, 7500, True)])
def test_of_few_images_luck_guesses_more(best: float, images: int, learned: bool):
    assert (best > learned_above(10, images)) == learned


@pytest.mark.parametrize(("best", "images", "learned"), [(88.9, 45, False), (93.0, 45, False), (97.8, 45, True)])
def test_always_answering_the_most_frequent_class_is_not_learning(best: float, images: int, learned: bool):
    assert (best > learned_above(2, images, majority=88.9)) == learned
    assert learned_above(2, images, majority=51.0) == learned_above(2, images)


def test_luck_is_the_same_on_both_sides_of_half():
    assert learned_above(3, 45, 50.001) == pytest.approx(learned_above(3, 45, 49.999), abs=0.01)


def test_before_any_epoch_nothing_is_best():
    empty = FitResult.empty()
    assert (empty.best_epoch, empty.best_accuracy, empty.epochs_without_improvement) == (0, 0.0, 0)
    assert empty.is_finite


def test_an_accuracy_of_zero_can_be_the_best():
    assert (history(0.0).best_epoch, history(0.0, 0.0).epochs_without_improvement) == (1, 1)


@pytest.mark.parametrize(("index", "loss"), [(0, math.nan), (3, math.inf), (2, -math.inf)])
@pytest.mark.parametrize("curve", ["train_loss", "test_loss"])
def test_one_loss_that_is_no_finite_number_is_noticed(curve, index, loss):
    values = [1.0] * 4
    values[index] = loss
    assert not history(50.0)._replace(**{curve: values}).is_finite


# Comparing two trainings


def test_equal_histories_have_no_difference():
    assert history(10.0, 20.0).first_difference(history(10.0, 20.0)) is None
    diverged = history(10.0)._replace(train_loss=[math.nan, 1.0])
    assert diverged.first_difference(diverged._replace(train_loss=[float("nan"), 1.0])) is None


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"num_epochs": 3}, "num_epochs: 2 and 3"),
        ({"train_loss": [2.5, 2.4, 1.5000000000000002, 1.4]}, "train_loss[2]: 1.5 and 1.5000000000000002"),
        ({"train_acc": [10.0, math.nan]}, "train_acc[1]: 11.0 and nan"),
        ({"test_loss": [2.3]}, "test_loss: 2 and 1 values"),
        ({"test_acc": [10.0, 21.0], "test_loss": [2.3, 2.2]}, "test_loss[1]: 2.3 and 2.2"),
    ],
)
def test_the_first_difference_is_named(changes, difference):
    assert history(10.0, 20.0).first_difference(history(10.0, 20.0)._replace(**changes)) == difference
