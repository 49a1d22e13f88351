"""Layers of ours against PyTorch's: the same values, the same gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tune_cnn.models import ConvClassifier, YourCodeNet, layers
from tune_cnn.models.layers import Conv2d, Linear, can_rectify, flatten


def twins(ours: type[nn.Module], theirs: type[nn.Module], *arguments: Any, **options: Any) -> list[nn.Module]:
    """A layer of ours and PyTorch's, with the same weights."""
    torch.manual_seed(0)
    pair = [kind(*arguments, **options) for kind in (ours, theirs)]
    pair[1].load_state_dict(pair[0].state_dict())
    assert repr(pair[0]) == repr(pair[1])
    return pair


def value_and_gradients(function, *inputs: Tensor) -> list[Tensor]:
    """What a function gives, and the gradients of its inputs if its values weigh unequally."""
    inputs = tuple(value.detach().clone(memory_format=torch.preserve_format).requires_grad_() for value in inputs)
    result = function(*inputs)
    torch.manual_seed(1)
    return [result.detach(), *torch.autograd.grad((result * torch.randn(result.shape)).sum(), inputs)]


@pytest.mark.parametrize("batch", [1, 7, 50])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_pytorchs_to_rounding(batch, bias):
    ours, theirs = twins(Linear, nn.Linear, 1300, 11, bias=bias)
    rows = torch.randn(batch, 1300)
    for value, expected in zip(*(value_and_gradients(layer, rows) for layer in (ours, theirs)), strict=True):
        torch.testing.assert_close(value, expected)
    for layer in (ours, theirs):
        layer(rows).square().mean().backward()
    for weights, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(weights.grad, expected.grad, rtol=1.3e-6, atol=1e-7)
    with torch.inference_mode():
        torch.testing.assert_close(ours(rows), theirs(rows))


@pytest.mark.parametrize("error", [RuntimeError("unsupported"), TypeError("unexpected argument")])
def test_where_onednn_fails_the_layers_are_pytorchs(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(layers, "_onednn_linear", fail)
    monkeypatch.setattr(layers, "_onednn_conv", fail)
    (ours, theirs), rows = twins(Linear, nn.Linear, 1300, 11), torch.randn(7, 1300)
    for value, expected in zip(*(value_and_gradients(layer, rows) for layer in (ours, theirs)), strict=True):
        torch.testing.assert_close(value, expected)
    conv, images = Conv2d(3, 6, 3, padding=1), torch.randn(2, 3, 5, 5)
    with torch.inference_mode(), torch.autocast(**BF16):
        assert torch.equal(conv(images, rectify=True), conv(images).relu())


def test_small_layers_are_pytorchs_bit_for_bit():
    ours, theirs = twins(Linear, nn.Linear, 100, 11)
    rows = torch.randn(50, 100)
    assert torch.equal(ours(rows), theirs(rows))


@pytest.mark.parametrize("rows", [torch.zeros(2, 3, 1300), torch.zeros(1300)], ids=["more dimensions", "one dimension"])
def test_a_linear_layer_takes_what_pytorchs_takes(rows):
    assert Linear(1300, 11)(rows).shape == (*rows.shape[:-1], 11)


def test_autocast_is_obeyed():
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(1300, 11)(torch.zeros(2, 1300)).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("size", [(5, 4, 6, 3), (1, 32, 8, 8), (2, 3, 1, 1), (3, 1, 4, 4), (50, 33, 7, 7)])
def test_flattened_images_are_pytorchs(dtype, memory_format, size):
    images = torch.randn(size).to(dtype).to(memory_format=memory_format)
    for value, expected in zip(
        value_and_gradients(flatten, images), value_and_gradients(lambda x: x.flatten(1), images), strict=True
    ):
        assert torch.equal(value, expected)


HAS_BF16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # other cores leave all of it to PyTorch
BF16 = {"device_type": "cpu", "dtype": torch.bfloat16}


@pytest.mark.parametrize("size", [(5, 3, 9, 8), (1, 3, 4, 4)])
def test_a_conv_layer_that_rectifies_gives_what_relu_gives_to_rounding(size):
    ours, theirs = twins(Conv2d, nn.Conv2d, 3, 6, 3, padding=1)
    images = torch.randn(size).to(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast(**BF16):
        assert torch.equal(ours(images), theirs(images))
        if can_rectify(images):
            torch.testing.assert_close(ours(images, rectify=True), theirs(images).relu())


def test_only_evaluation_in_bf16_on_cores_rectifies_at_once():
    images = torch.randn(2, 3, 4, 4)
    with torch.autocast(**BF16):
        assert not can_rectify(images)  # a gradient may be asked for
        with torch.no_grad():
            assert can_rectify(images) == HAS_BF16
            assert not can_rectify(images[0])
            assert not can_rectify(images.double())
            assert not can_rectify(images.to("meta"))
    with torch.no_grad():
        assert not can_rectify(images)


@pytest.mark.parametrize("pool_every", [1, 2])
@pytest.mark.parametrize("is_bf16", [False, True])
def test_evaluation_gives_the_scores_of_training_to_rounding(pool_every, is_bf16):
    torch.manual_seed(0)
    model = ConvClassifier((3, 8, 8), 4, [6, 6], pool_every, [12])
    images = torch.randn(5, 3, 8, 8)
    with torch.autocast(**BF16, enabled=is_bf16):
        with torch.no_grad():
            scores = model(images)
        torch.testing.assert_close(scores, model(images))


@pytest.mark.parametrize("pool_every", [1, 2])
def test_pooling_before_relu_changes_nothing(pool_every):
    torch.manual_seed(0)
    model = ConvClassifier((3, 8, 8), 4, [6, 6], pool_every, [12])
    with torch.no_grad():  # whole windows of zeros after the ReLU, and equal values in a window
        model.feature_extractor[0].weight[:2] = 0
        model.feature_extractor[0].bias[:2] = torch.tensor([-1.0, 1.0])
    images = torch.randn(5, 3, 8, 8)
    ours = value_and_gradients(model, images)
    as_printed = value_and_gradients(lambda x: model.classifier(flatten(model.feature_extractor(x))), images)
    assert all(map(torch.equal, ours, as_printed))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("network", [ConvClassifier, YourCodeNet])
def test_networks_can_be_traced_as_tensorboards_graph_is(network):
    model, images = network((3, 32, 32), 10, [4] * 4, 2, [10]).eval(), torch.rand(2, 3, 32, 32)
    assert torch.allclose(torch.jit.trace(model, images)(images), model(images), atol=1e-5)
