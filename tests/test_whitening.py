"""The first layer that whitens: what it makes of patches, and that it stays as it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from easy_images import SETTINGS, easy_images
from torch import Tensor, nn

from tune_cnn import data
from tune_cnn.models import ConvClassifier, YourCodeNet
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.trial import Trial
from tune_cnn.whitening import whiten_first_conv

DRAWN = data.load(DataSettings("shapes", in_size=(3, 12, 12), train_images=80, test_images=1)).train.images


def responses(filters: int) -> Tensor:
    """What a whitened first layer makes of the patches inside the images, (filters, patches)."""
    model = ConvClassifier((3, 12, 12), 10, [filters], 1, [])
    whiten_first_conv(model, DRAWN)
    with torch.no_grad():
        maps = model.feature_extractor[0](torch.tensor(DRAWN).permute(0, 3, 1, 2).float() / 255)
    return maps[:, :, 1:-1, 1:-1].transpose(0, 1).flatten(1)


def test_each_component_has_mean_0_variance_1_and_nothing_in_common_with_the_others():
    found = responses(filters=8)[:4]
    assert found.mean(dim=1).abs().max() < 1e-3
    assert found.cov().diag() == pytest.approx([1, 1, 1, 1], abs=0.02)
    assert (found.cov() - found.cov().diag().diag()).abs().max() < 0.01


def test_each_component_has_either_sign():
    found = responses(filters=8)
    assert torch.allclose(found[:4], -found[4:], atol=1e-5)


def test_filters_beyond_two_for_each_component_keep_their_first_weights():
    torch.manual_seed(0)
    model = YourCodeNet((3, 12, 12), 10, [60], 1, [])
    first = model.feature_extractor[0].weight.detach().clone()
    whiten_first_conv(model, DRAWN)
    changed = (model.feature_extractor[0].weight != first).flatten(1).any(dim=1)
    assert changed.tolist() == [True] * 54 + [False] * 6


def test_images_smaller_than_a_patch_and_of_one_colour_are_whitened_too():
    model = ConvClassifier((3, 2, 2), 10, [8], 1, [])
    whiten_first_conv(model, np.full((5, 2, 2, 3), 7, dtype=np.uint8))
    assert all(weights.isfinite().all() for weights in model.parameters())


@pytest.mark.parametrize("ycn", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_training_leaves_it_as_it_is_and_moves_all_else(ycn, optimizer):
    settings = Settings(
        seed=1, bs_train=20, epochs=2, filters_per_layer=(8,), layers_per_block=2, hidden_dims=(5,), ycn=ycn,
        optimizer=optimizer, init="whitened", data=SETTINGS,
    )  # fmt: skip
    trial = Trial(settings, easy_images())
    first = {name: weights.clone() for name, weights in trial.trainer.model.state_dict().items()}
    while trial.stop_reason is None:
        trial.run_epoch()
    moved = {name for name, weights in trial.trainer.model.named_parameters() if not torch.equal(weights, first[name])}
    assert {name for name, _ in trial.trainer.model.named_parameters()} - moved == {"feature_extractor.0.weight"}

    again = Trial(replace(settings, seed=2), easy_images())
    convs = [next(m for m in t.trainer.model.modules() if isinstance(m, nn.Conv2d)) for t in (trial, again)]
    assert torch.equal(convs[0].weight, convs[1].weight)  # as the images decide it, and not the seed
