"""Optimizers and learning rates, against PyTorch's own and against the formula."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from tune_cnn.settings import Settings
from tune_cnn.training.muon import Muon
from tune_cnn.training.optimizers import build_optimizer, build_scheduler, learning_rate_factor

SETTINGS = Settings(lr=0.1, reg=0.01)


@pytest.mark.parametrize(
    ("changes", "kind", "options"),
    [
        ({}, torch.optim.Adam, {}),
        ({"optimizer": "adamw"}, torch.optim.AdamW, {}),
        ({"optimizer": "sgd"}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ({"optimizer": "sgd", "momentum": 0.0}, torch.optim.SGD, {}),
        (  # of vectors, as here
            {"optimizer": "muon", "lr": 0.01, "momentum": 0.6},
            torch.optim.SGD,
            {"lr": 0.2, "momentum": 0.6, "nesterov": True},
        ),
    ],
)
def test_steps_are_those_of_pytorchs_optimizer(changes, kind, options):
    ours, theirs = (nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    optimizers = (
        build_optimizer([ours], replace(SETTINGS, **changes)),
        kind([theirs], **{"lr": 0.1, "weight_decay": 0.01, **options}),
    )
    for step in range(5):
        for weights, optimizer in zip((ours, theirs), optimizers, strict=True):
            weights.grad = weights.detach().sin() + step
            optimizer.step()
    torch.testing.assert_close(ours, theirs)
    assert not torch.equal(ours, torch.tensor([1.0, -2.0]))


def test_no_training_imports_the_compiler():
    """It takes a second and 150 MB in each process."""
    program = """
import sys
from tune_cnn import data
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.trial import Trial

images = data.resolve(DataSettings("shapes", train_images=40, test_images=10, in_size=(3, 8, 8)))
for optimizer, ycn in (("adam", False), ("adamw", True), ("sgd", False), ("muon", True)):
    settings = Settings(
        data=images, epochs=1, optimizer=optimizer, ycn=ycn, schedule="cosine", filters_per_layer=(4,), hidden_dims=()
    )
    trial, again = (Trial(settings, data.load(images)) for _ in range(2))
    trial.run_epoch()
    again.load_state_dict(trial.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Muon


def test_muon_trains_a_matrix_as_sgd_trains_one_whose_result_is_divided_by_nine():
    torch.manual_seed(0)
    drawn, rows = torch.randn(3, 4), torch.randn(5, 4)
    ours, theirs = nn.Parameter(drawn.clone()), nn.Parameter(9 * drawn)
    optimizers = (
        build_optimizer([ours], replace(SETTINGS, optimizer="muon", lr=0.01, momentum=0.6)),
        torch.optim.SGD([theirs], lr=0.2, momentum=0.6, weight_decay=0.01, nesterov=True),
    )
    for weights, divisor, optimizer in zip((ours, theirs), (1, 9), optimizers, strict=True):
        for _ in range(5):
            optimizer.zero_grad()
            (rows @ weights.T / divisor).sin().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs / 9)
    assert not torch.allclose(ours, drawn, atol=1e-3)


@pytest.mark.parametrize(("scale", "gradient"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1e-30)])
def test_muon_leaves_a_conv_layer_as_it_is_that_is_dead_or_zero(scale, gradient):
    drawn = torch.randn(8, 3, 3, 3) * scale
    weight = nn.Parameter(drawn.clone())
    weight.grad = torch.randn(8, 3, 3, 3) * gradient
    Muon([weight], lr=0.1, momentum=0.6, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), drawn)


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (32, 2, 3, 3), (8, 1, 3, 3, 3)], ids=["wide", "tall", "3d"])
def test_muon_turns_conv_weights_by_a_share_of_their_norm_in_all_directions_equally(shape):
    torch.manual_seed(0)
    drawn = torch.randn(shape)
    drawn = drawn.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else drawn
    weight = nn.Parameter(drawn.clone())
    weight.grad = torch.randn(shape) * torch.logspace(0, -1, 3)  # some directions dominate
    Muon([weight], lr=0.1, momentum=0.6, weight_decay=0.5).step()
    assert weight.norm().item() == pytest.approx(drawn.norm().item(), rel=1e-5)
    u, _, v = torch.linalg.svd(weight.grad.flatten(1), full_matrices=False)
    exact = (u @ v).view(shape)
    expected = drawn - 0.1 * drawn.norm() * exact / exact.norm()
    expected *= drawn.norm() / expected.norm()
    assert (weight - expected).norm() < 0.35 * (expected - drawn).norm()
    descent = drawn - 0.1 * drawn.norm() * weight.grad / weight.grad.norm()
    assert (weight - expected).norm() < 0.5 * (weight - descent).norm(), "the gradient itself was followed"


# Learning rates


@pytest.mark.parametrize(
    ("changes", "factors"),
    [
        ({"warmup": 0.2}, [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 1]),
        ({"schedule": "linear"}, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ({"schedule": "linear", "warmup": 0.5}, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0, 0.8, 0.6, 0.4, 0.2]),
        ({"schedule": "cosine"}, [(1 + math.cos(math.pi * batch / 10)) / 2 for batch in range(10)]),
    ],
)
def test_learning_rate_of_each_of_ten_batches(changes, factors):
    settings = replace(SETTINGS, **changes)
    assert [learning_rate_factor(settings, batch, 10) for batch in range(10)] == pytest.approx(factors)
    optimizer = build_optimizer([nn.Parameter(torch.zeros(1))], settings)
    scheduler = build_scheduler(optimizer, settings, 10)
    used = []
    for _ in range(10):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert used == pytest.approx([0.1 * factor for factor in factors])
