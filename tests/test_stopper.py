"""The stopper of Tune ends the trials that say that they are over, and remembers nothing."""

import pickle

import pytest
from ray.tune.stopper import FunctionStopper

from tune_cnn.sweep.trainable import has_ended


@pytest.mark.parametrize("reason", ["epochs", "plateau", "diverged"])
def test_a_trial_stops_when_it_gives_a_reason(reason):
    assert has_ended("trial", {"epoch": 3, "stop_reason": reason}) is True
    assert has_ended("trial", {"epoch": 3, "stop_reason": None}) is False


def test_a_trial_that_failed_for_good_stops_although_it_reports_no_epoch():
    assert has_ended("trial", {"done": True, "failure": "epoch 1: IndexError"}) is True


def test_a_trial_that_stops_changes_nothing_for_others_or_for_a_restored_stopper():
    stopper = FunctionStopper(has_ended)  # into which Tune makes it
    before = pickle.dumps(stopper)
    stopper("one", {"stop_reason": "plateau"})
    assert stopper.stop_all() is False
    assert pickle.dumps(stopper) == before
    assert pickle.loads(before)("one", {"stop_reason": None}) is False
