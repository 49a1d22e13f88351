"""What the diagnosis measures, what it concludes, and whether that comes true."""

import dataclasses
import itertools
import json
import math
import time
from typing import Any

import easy_images
import pytest
import torch

from tune_cnn import data, models
from tune_cnn.diagnosis import Diagnosis, diagnose, diagnose_all
from tune_cnn.diagnosis.verdicts import judge
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.train_results import learned_above
from tune_cnn.trial import Trial

COMMON = Settings(
    seed=42, bs_train=50, batches=10_000, epochs=30, lr=1e-3, reg=2e-3, filters_per_layer=(8,), layers_per_block=2,
    pool_every=4, hidden_dims=(100, 100),
)  # fmt: skip
SHAPES = data.resolve(DataSettings(source="shapes", in_size=(3, 32, 32), train_images=400, test_images=10))


def variant(**changes: Any) -> Settings:
    return dataclasses.replace(COMMON, **changes)


@pytest.fixture(scope="module")
def shapes() -> data.ImageSet:
    return data.load(SHAPES).train


def of(shapes: data.ImageSet, **changes: Any) -> Diagnosis:
    return diagnose(dataclasses.replace(COMMON, data=SHAPES, **changes), shapes)


# What is measured


@pytest.mark.parametrize("ycn", [False, True])
def test_figures_are_those_of_the_trials_own_network_and_first_images(shapes, ycn):
    settings = dataclasses.replace(COMMON, data=SHAPES, layers_per_block=3, pool_every=2, ycn=ycn)
    model = Trial(settings, data.load(SHAPES)).trainer.model.train()
    images = torch.from_numpy(shapes.images[:50]).permute(0, 3, 1, 2).float() / 255
    scores = model(images)
    torch.nn.functional.cross_entropy(scores, torch.from_numpy(shapes.labels[:50])).backward()
    found = diagnose(settings, shapes)
    assert found.images == 50
    assert found.score_spread == pytest.approx(scores.std(dim=0).mean().item(), rel=1e-3)
    ratios = [
        (module.weight.grad.norm() / module.weight.norm()).item()
        for module in model.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    assert found.gradient_to_weight == pytest.approx(ratios, rel=1e-3)
    assert len(found.dead_units) == 3


def test_units_that_no_image_activates_are_dead(shapes, monkeypatch):
    build = models.build

    def with_dead_units(settings: Settings) -> torch.nn.Module:
        model = build(settings)
        first, second = (module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
        for conv in (first, second):
            torch.nn.init.constant_(conv.bias, 5.0)
        torch.nn.init.constant_(second.bias[:2].data, -50.0)
        return model

    monkeypatch.setattr(models, "build", with_dead_units)
    assert of(shapes).dead_units == (0.0, 0.25)


def test_random_state_stays_as_it_was(shapes):
    for seed in (42, None):
        state = torch.get_rng_state()
        of(shapes, seed=seed)
        assert torch.equal(state, torch.get_rng_state())


def test_random_state_stays_as_it_was_where_the_network_draws_too(shapes, monkeypatch):
    build = models.build
    monkeypatch.setattr(models, "build", lambda settings: torch.nn.Sequential(torch.nn.Dropout(), build(settings)))
    state = torch.get_rng_state()
    of(shapes)
    assert torch.equal(state, torch.get_rng_state())


def test_images_of_a_sweep_may_be_read_only():
    images = easy_images.easy_images()
    settings = dataclasses.replace(COMMON, data=easy_images.SETTINGS)
    assert diagnose(settings, images.train).images == 50


def test_it_is_told_as_json(shapes):
    found = of(shapes)
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert set(values) == {field.name for field in dataclasses.fields(Diagnosis)}
    assert values["verdict"] == "trains"
    assert values["gradient_to_weight"] == pytest.approx(found.gradient_to_weight, rel=1e-3)


def test_the_deepest_network_takes_under_two_seconds_and_a_tiny_one_milliseconds(shapes):
    def least_s(**changes: Any) -> float:
        def once() -> float:
            started = time.process_time()
            of(shapes, **changes)
            return time.process_time() - started

        return min(once() for _ in range(3))

    assert least_s(filters_per_layer=(64,), layers_per_block=16) < 2
    assert least_s(filters_per_layer=(4,), layers_per_block=1, hidden_dims=()) < 0.1


def test_a_wide_network_is_told_from_fewer_images(shapes):
    assert of(shapes, filters_per_layer=(128,), layers_per_block=8).images < 50


def test_the_costliest_are_left_out_when_time_is_up(shapes, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    trials = [variant(data=SHAPES, filters_per_layer=(k,)) for k in (9, 5, 7, 5)]
    found = diagnose_all(trials, within_s=2)
    assert list(found.by_trial) == [trials[1].trial_id, trials[2].trial_id]
    assert found.left_out == ["no verdict on 1 of 3 trials within 2 s; tune-cnn diagnose has no time limit"]
    assert found.by_trial[trials[1].trial_id] == diagnose(trials[1], shapes)


def test_images_that_are_missing_are_looked_for_once(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    trials = [variant(data=DataSettings("arrays", "absent.npz"), filters_per_layer=(k,)) for k in (5, 7, 9)]
    (line,) = diagnose_all(trials, download=False, within_s=1).left_out
    assert line.startswith("no verdict without images: ")


# What is concluded


def test_the_grids_verdicts(shapes):
    def verdict(depth: int, **changes: Any) -> str:
        return of(shapes, filters_per_layer=(32,), layers_per_block=depth, bs_train=1, **changes).verdict

    assert [verdict(depth) for depth in (2, 8, 16)] == ["trains", "will not learn", "will not learn"]
    assert [verdict(depth, init="he") for depth in (2, 8, 16)] == ["trains"] * 3
    assert [verdict(depth, ycn=True) for depth in (2, 8, 16)] == ["trains"] * 3
    assert verdict(8, optimizer="adamw") == verdict(8, reg=0.0) == "trains"


DECAY = "Weight decay"
ENOUGH = "2.0e-04 would do at reg 0.002 and lr 0.001."


@pytest.mark.parametrize(
    ("changes", "spread", "relative_change", "expected"),
    [
        ({}, 2.7e-3, 9.0, ("trains", f"The scores of different images differ by 2.7e-03; {ENOUGH}")),
        (
            {}, 8.3e-6, 9.0,
            ("will not learn",
             f"The scores of different images differ by 8.3e-06 only; {ENOUGH} "
             f"{DECAY} outweighs so small a signal.",
             "init: he", "ycn: true", "reg: 8e-07 or less", "optimizer: adamw", "fewer layers"),
        ),
        (
            {"init": "he"}, 1.8e-4, 9.0,
            ("at risk",
             f"The scores of different images differ by 1.8e-04 only; {ENOUGH} "
             f"{DECAY} may outweigh so small a signal.",
             "ycn: true", "reg: 4e-04 or less", "optimizer: adamw", "fewer layers"),
        ),
        (
            {"optimizer": "sgd"}, 3e-4, 9.0,
            ("at risk",
             "The scores of different images differ by 3.0e-04 only; 4.9e-04 would do at reg 0.002. "
             f"{DECAY} may outweigh so small a signal.",
             "init: he", "ycn: true", "reg: 1e-04 or less", "fewer layers"),
        ),
        (
            {}, 4e-9, 9.0,
            ("will not learn",
             f"The scores of different images differ by 4.0e-09 only; {ENOUGH} "
             f"{DECAY} outweighs so small a signal.",
             "init: he", "ycn: true", "fewer layers"),
        ),
        (
            {"optimizer": "adamw"}, 4e-9, 9.0,
            ("will not learn",
             "The scores of different images differ by 4.0e-09 only, where float32 begins to round; 1.0e-07 would do.",
             "init: he", "ycn: true", "fewer layers"),
        ),
        (
            {"lr": 0.05}, 2.7e-2, 9.0,
            ("will not learn",
             "Adam changes each weight by about lr = 0.05 in a batch; in 5 layers without normalisation these changes "
             "multiply, and destroy the features.",
             "lr: 7e-03 or less", "ycn: true"),
        ),
        ({"lr": 0.05, "model": "nets.py:ConvClassifier"}, 0.3, 9.0,  # a custom network of the same name
         ("trains", "The scores of different images differ by 3.0e-01; 1.4e-03 would do at reg 0.002 and lr 0.05.")),
        ({"lr": 0.05, "ycn": True}, 0.3, 9.0,
         ("trains", "The scores of different images differ by 3.0e-01; 1.4e-03 would do at reg 0.002 and lr 0.05.")),
        (
            {}, 2.7e-3, 0.01,
            ("will not learn",
             "The whole training can change the weights of a conv layer by 1.0% of their norm at most; 20% would do.",
             "a higher lr", "more epochs or batches"),
        ),
        ({}, math.nan, 9.0, ("will not learn", "The scores are not finite numbers.", "fewer layers", "ycn: true")),
    ],
)  # fmt: skip
def test_verdict_reason_and_remedies(changes, spread, relative_change, expected):
    verdict, reason, remedies = judge(variant(**changes), spread, relative_change)
    assert (verdict, reason, *remedies) == expected


@pytest.mark.parametrize(
    ("changes", "spread", "batches", "expected"),
    [
        ({"reg": 0.0}, 1e-5, 5000, "trains"),
        ({"reg": 0.0}, 1e-5, 400, "at risk"),
        ({"reg": 0.0}, 1e-5, 50, "will not learn"),
        ({"reg": 0.0, "lr": 3e-3}, 1e-5, 400, "trains"),
        ({"reg": 0.0}, 1e-3, 1, "trains"),
        ({"reg": 0.0, "ycn": True}, 1e-5, 50, "trains"),
    ],
)
def test_a_small_signal_needs_batches_to_grow_before_early_stopping_ends_the_training(
    changes, spread, batches, expected
):
    assert judge(variant(**changes), spread, 9.0, batches).verdict == expected


def test_early_stopping_is_named_where_it_ends_the_training_too_soon():
    reason = "The scores of different images differ by 1.0e-05 only, which takes some 200 batches to grow; "
    with_it, without = (judge(variant(reg=0.0, early_stopping=patience), 1e-5, 9.0, 400) for patience in (3, None))
    assert with_it.reason == without.reason == f"{reason}the training may end after 400."
    assert with_it.remedies == ("init: he", "ycn: true", "early_stopping: null", "fewer layers")
    assert without.remedies == ("init: he", "ycn: true", "more epochs or batches", "fewer layers")


# Whether it comes true: combinations on which nothing was calibrated.

HELD_OUT = [
    variant(filters_per_layer=(10,), layers_per_block=2, pool_every=2, hidden_dims=(60,), reg=1e-3),
    variant(filters_per_layer=(10,), layers_per_block=7, pool_every=4, hidden_dims=(60,), reg=1e-3),
    variant(filters_per_layer=(10,), layers_per_block=7, pool_every=4, hidden_dims=(60,), reg=1e-3, init="he"),
    variant(filters_per_layer=(6, 12), layers_per_block=3, pool_every=3, hidden_dims=(80, 40), reg=3e-3),
    variant(filters_per_layer=(6, 12), layers_per_block=3, pool_every=3, hidden_dims=(80, 40), reg=3e-3, ycn=True),
    variant(filters_per_layer=(14,), layers_per_block=3, pool_every=5, hidden_dims=(), reg=5e-4),
    variant(filters_per_layer=(10,), layers_per_block=7, pool_every=4, hidden_dims=(60,), reg=1e-2, optimizer="adamw"),
    variant(filters_per_layer=(9,), layers_per_block=5, pool_every=2, hidden_dims=(50,) * 3, reg=2e-3),
    variant(filters_per_layer=(9,), layers_per_block=2, pool_every=2, hidden_dims=(50,), reg=2e-1),
    variant(filters_per_layer=(12,), layers_per_block=4, pool_every=3, hidden_dims=(70,), reg=1e-3, init="he", lr=3e-2),
]


@pytest.mark.slow
def test_at_least_nine_of_ten_verdicts_come_true():
    source = data.resolve(DataSettings(source="shapes", in_size=(3, 16, 16), train_images=2500, test_images=10, seed=5))
    images = data.load(source)
    wrong = []
    for held_out in HELD_OUT:
        settings = dataclasses.replace(held_out, data=source, seed=7, epochs=8, early_stopping=None)
        trial, learned = Trial(settings, images), False
        while trial.stop_reason is None and not learned:
            trial.run_epoch()
            learned = trial.history.test_acc[-1] > learned_above(source.classes)
        found = diagnose(settings, images.train)
        outcome = "trains" if learned else "will not learn"
        if found.verdict != outcome:
            wrong.append((held_out, found, trial.history.test_acc))
    assert len(wrong) <= 1, wrong
