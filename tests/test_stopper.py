"""The stopper of Tune ends the trials that say that they are over."""

import pytest

from tune_cnn.sweep.trainable import has_ended


@pytest.mark.parametrize("reason", ["epochs", "plateau", "diverged"])
def test_a_trial_stops_when_it_gives_a_reason(reason):
    assert has_ended("trial", {"epoch": 3, "stop_reason": reason}) is True
    assert has_ended("trial", {"epoch": 3, "stop_reason": None}) is False


def test_a_trial_that_failed_for_good_stops_although_it_reports_no_epoch():
    assert has_ended("trial", {"done": True, "failure": "epoch 1: IndexError"}) is True
