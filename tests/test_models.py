import math
import re

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from tune_cnn import bench as textbook
from tune_cnn import data, models
from tune_cnn.models import ConvClassifier, YourCodeNet, cost
from tune_cnn.settings import DataSettings, Settings

NETWORKS = [ConvClassifier, YourCodeNet]


# ConvClassifier


def test_scores_are_those_of_the_assignment():
    torch.manual_seed(42)
    network = ConvClassifier((3, 100, 100), 10, [32] * 4, 2, [100] * 2)
    image = torch.randint(0, 256, (3, 100, 100), dtype=torch.float)
    expected = [-0.0868, -0.3790, -0.4341, -0.1236, -0.2160, 0.1683, 0.4739, 0.0750, 0.1151, -0.1606]
    assert network(image[None]).squeeze().tolist() == pytest.approx(expected, abs=6e-5)


def test_structure_is_printed_as_in_the_assignment():
    network = ConvClassifier((3, 100, 100), 10, filters=[32] * 4, pool_every=2, hidden_dims=[100] * 2)
    assert (
        str(network)
        == """\
ConvClassifier(
  (feature_extractor): Sequential(
    (0): Conv2d(3, 32, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (1): ReLU()
    (2): Conv2d(32, 32, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (3): ReLU()
    (4): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
    (5): Conv2d(32, 32, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (6): ReLU()
    (7): Conv2d(32, 32, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (8): ReLU()
    (9): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
  )
  (classifier): Sequential(
    (0): Linear(in_features=20000, out_features=100, bias=True)
    (1): ReLU()
    (2): Linear(in_features=100, out_features=100, bias=True)
    (3): ReLU()
    (4): Linear(in_features=100, out_features=10, bias=True)
  )
)"""
    )


@pytest.mark.parametrize(
    ("in_size", "filters", "pool_every", "hidden_dims"),
    [
        ((3, 32, 32), [32] * 2, 4, [100, 100]),  # fewer layers than P: no pooling
        ((3, 16, 16), [4, 4, 8, 8], 2, [10]),  # several K
        ((3, 13, 9), [8, 4, 6], 1, []),  # odd sizes, a narrower layer, no hidden layer
        ((3, 8, 8), [4] * 5, 2, [7, 5]),  # a layer after the last pooling
        ((1, 2, 2), [3], 1, [4]),  # pooled to 1x1
    ],
)
def test_weights_and_scores_are_those_of_the_layers_written_by_hand(in_size, filters, pool_every, hidden_dims):
    torch.manual_seed(3)
    settings = Settings(
        filters_per_layer=filters,
        layers_per_block=1,
        pool_every=pool_every,
        hidden_dims=hidden_dims,
        data=DataSettings(in_size=in_size, classes=7),
    )
    by_hand = textbook.conv_classifier(settings)
    torch.manual_seed(3)
    network = ConvClassifier(in_size, 7, filters, pool_every, hidden_dims)
    for ours, theirs in zip(network.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    images = torch.rand(2, *in_size)
    torch.testing.assert_close(network(images), by_hand(images))


# Both networks


@pytest.mark.parametrize("network", NETWORKS)
def test_children_are_a_feature_extractor_and_a_classifier(network):
    children = dict(network((3, 8, 8), 10, [4, 6], 2, [5]).named_children())
    assert list(children) == ["feature_extractor", "classifier"]
    assert all(isinstance(child, nn.Sequential) for child in children.values())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("filters", [[4], [4] * 3, [4, 8, 8], [8, 4, 2]])
@pytest.mark.parametrize("hidden_dims", [[], [9], [9, 6]])
def test_every_image_gets_a_score_for_each_class(network, filters, hidden_dims):
    assert network((3, 9, 8), 7, filters, 2, hidden_dims)(torch.rand(5, 3, 9, 8)).shape == (5, 7)


@pytest.mark.parametrize("network", NETWORKS)
def test_pooling_below_one_pixel_is_refused_with_the_way_out(network):
    message = (
        "6 poolings (24 conv layers, one pooling every 4) shrink 32x32 images below 1x1; at most 5 fit: "
        "use a pool_every of at least 5, or at most 23 conv layers"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        network((3, 32, 32), 10, [32] * 24, 4, [100])
    network((3, 32, 32), 10, [2] * 24, 5, [100])
    network((3, 32, 32), 10, [2] * 23, 4, [100])


@pytest.mark.parametrize("network", NETWORKS)
def test_the_shorter_side_decides_how_often_an_image_can_be_pooled(network):
    network((3, 64, 4), 10, [2] * 2, 1, [])
    with pytest.raises(ValueError, match="shrink 64x4 images below 1x1; at most 2 fit"):
        network((3, 64, 4), 10, [2] * 3, 1, [])


# How much of the image arrives at the scores, see DESIGN: the reason why depth decides whether a network learns


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Drawn images (64, 3, 32, 32), floats in [0, 1]."""
    drawn = data.load(DataSettings("shapes", train_images=80, test_images=1)).train
    return default_collate(textbook.pairs(drawn)[:64])[0]


def spread(network: type[nn.Module], layers: int, images: Tensor) -> float:
    """The standard deviation of a score over different images, before any training."""
    torch.manual_seed(42)
    with torch.no_grad():
        return network((3, 32, 32), 10, [32] * layers, 4, [100, 100])(images).std(dim=0).mean().item()


@pytest.mark.parametrize(("layers", "known"), [(2, 2.7e-3), (4, 2.5e-4), (8, 8e-6), (16, 4e-9)])
def test_depth_takes_the_image_out_of_the_scores_of_a_conv_classifier(images, layers, known):
    assert known / 3 < spread(ConvClassifier, layers, images) < known * 3


def test_your_code_net_sees_the_image_at_every_depth(images):
    spreads = {layers: spread(YourCodeNet, layers, images) for layers in (2, 4, 8, 16)}
    assert min(spreads.values()) > 0.01
    assert spreads[16] > 1e6 * spread(ConvClassifier, 16, images)


def test_your_code_net_gives_the_first_layer_a_gradient_at_depth_16(images):
    labels = torch.arange(len(images)) % 10
    norms = {}
    for network in NETWORKS:
        torch.manual_seed(42)
        model = network((3, 32, 32), 10, [32] * 16, 4, [100, 100])
        nn.functional.cross_entropy(model(images), labels).backward()
        norms[network] = next(model.parameters()).grad.norm().item()
    assert norms[ConvClassifier] < 1e-6
    assert norms[YourCodeNet] > 1e-2


@pytest.mark.parametrize(("layers", "skips"), [(7, 0), (8, 7)])
def test_your_code_net_has_skips_where_it_is_deep(layers, skips):
    model = YourCodeNet((3, 32, 32), 10, [4] * layers, 4, [])
    assert sum(getattr(module, "has_skip", False) for module in model.modules()) == skips


@pytest.mark.parametrize("width", [8, 300], ids=["where a channel is seen", "the highest value of a channel"])
def test_first_scores_of_your_code_net_prefer_no_class(images, width):
    torch.manual_seed(42)
    scores = YourCodeNet((3, 32, 32), 10, [8, width], 1, [])(images)
    loss = nn.functional.cross_entropy(scores, torch.arange(len(images)) % 10).item()
    assert loss == pytest.approx(math.log(10), abs=0.15)


def test_your_code_net_takes_a_last_batch_of_one_image():
    """Also where its last maps have a single value, which has no spread that could be normalised."""
    model = YourCodeNet((3, 2, 2), 10, [4, 4, 4], 2, [])
    assert model.train()(torch.rand(1, 3, 2, 2)).isfinite().all()


def test_your_code_net_without_conv_layers_is_refused():
    with pytest.raises(ValueError, match="at least one conv layer; give filters"):
        YourCodeNet((3, 8, 8), 10, [], 1, [])


# A trial's network, and its cost


def test_settings_choose_the_network():
    small = Settings(filters_per_layer=(4, 6), layers_per_block=2, pool_every=3, hidden_dims=(5,), bs_train=8)
    by_hand = ConvClassifier((3, 32, 32), 10, [4, 4, 6, 6], 3, [5])
    assert str(models.build(small)) == str(by_hand)
    assert isinstance(models.build(Settings(ycn=True)), YourCodeNet)


@pytest.mark.parametrize("ycn", [False, True])
@pytest.mark.parametrize("pool_every", [1, 2, 3])
def test_cost_is_what_a_forward_pass_does(ycn, pool_every):
    settings = Settings(filters_per_layer=(8, 16), layers_per_block=2, pool_every=pool_every, hidden_dims=(5,), ycn=ycn)
    network = models.build(settings)
    counts = []

    def count(module, inputs, output):
        positions = output[0, 0].numel() if output.dim() == 4 else 1
        counts.append(module.weight.numel() * positions)

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    network(torch.rand(2, 3, 32, 32))
    assert cost(settings).multiply_adds == sum(counts)
    assert cost(settings).parameters == sum(weight.numel() for weight in network.parameters())


def test_cost_draws_nothing():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    cost(Settings())
    assert torch.equal(torch.get_rng_state(), state)


def test_cost_of_a_network_that_cannot_be_built_is_an_error():
    with pytest.raises(ValueError, match="below 1x1"):
        cost(Settings(layers_per_block=6, pool_every=1))
