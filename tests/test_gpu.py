"""What a GPU needs, tested without one: on cores, on tensors that only pretend to be on a GPU, and by PyTorch's flags.

Tests marked `gpu` need a real one, and are skipped elsewhere.
"""

import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from easy_images import easy_images
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tune_cnn import trial as trial_module
from tune_cnn.data.augmentation import augmented, views
from tune_cnn.data.batches import evaluation_batches
from tune_cnn.models import ConvClassifier, YourCodeNet
from tune_cnn.models.layers import AdaptiveMaxPool2d, pooled_by_products
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep import pace
from tune_cnn.training import TorchTrainer
from tune_cnn.training.devices import is_cuda_error, is_out_of_memory, numerics
from tune_cnn.training.loop import losses_of_parts
from tune_cnn.training.muon import Muon
from tune_cnn.training.optimizers import build_optimizer
from tune_cnn.trial import Trial

IMAGES = easy_images()
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIZE = tuple(IMAGES.train.images.shape[i] for i in (3, 1, 2))
SETTINGS = Settings(
    seed=1, bs_train=16, epochs=2, filters_per_layer=(4,), layers_per_block=2, hidden_dims=(8,), early_stopping=None,
    data=DataSettings("cifar10", in_size=SIZE, classes=len(IMAGES.classes)),
)  # fmt: skip


# Images that stay on the device


def test_resident_images_are_sent_once_and_evaluated_in_order():
    first, second = (evaluation_batches(IMAGES.validation, 5, at_least=12, device=CPU) for _ in range(2))
    assert first.resident[0] is second.resident[0]
    labels = torch.cat([labels for _, labels in first])
    assert labels.tolist() == IMAGES.validation.labels.tolist()
    assert first.loss_batch_size == 5


@pytest.mark.parametrize("precision", ["fp32", "ieee", "tf32", "bf16"])
@pytest.mark.parametrize("ycn", [False, True])
def test_a_trial_on_resident_images_is_bit_for_bit_the_same(monkeypatch, precision, ycn):
    settings = replace(SETTINGS, precision=precision, ycn=ycn, flip=True, translate=1, cutout=2, average=0.9, batches=3)
    states = []
    for resident in (False, True):
        monkeypatch.setattr(trial_module, "fits", lambda nbytes, device, resident=resident: resident)
        trial = Trial(settings, IMAGES)
        trial.run_epoch()
        trial.run_epoch()
        assert (trial.train_batches.resident is not None) is resident
        states.append(trial)
    loaded, resident = states
    assert resident.history == loaded.history
    assert resident.test_result == loaded.test_result
    for mine, theirs in zip(resident.best_weights.values(), loaded.best_weights.values(), strict=True):
        assert torch.equal(mine, theirs)


# The same numbers in fewer operators, and in a fixed order


@pytest.mark.parametrize(("size", "places"), [((8, 8), (4, 4)), ((7, 5), (4, 2)), ((3, 3), (3, 1))])
def test_pooling_by_products_is_adaptive_average_pooling(size, places):
    images = torch.rand(2, 3, *size, dtype=torch.double, requires_grad=True)
    found = []
    for pooled in (pooled_by_products(images, places), nn.AdaptiveAvgPool2d(places)(images)):
        weights = torch.arange(pooled.numel()).reshape(pooled.shape)
        found.append((pooled, *torch.autograd.grad((pooled * weights).sum(), images)))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_scaler_leaves_muon_to_skip_a_batch_whose_gradients_are_not_finite():
    weights = [nn.Parameter(torch.rand(shape)) for shape in ((4, 3, 3, 3), (5, 4), (5,))]
    alone = [nn.Parameter(weight.detach().clone()) for weight in weights]
    scaled, plain = Muon(weights, 0.1, 0.6, 0.01), Muon(alone, 0.1, 0.6, 0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for step in range(4):
        draws = [torch.rand_like(weight) for weight in weights]
        if step == 2:
            draws[1][0, 0] = torch.inf
        for weight, other, draw in zip(weights, alone, draws, strict=True):
            scaler.scale((weight * draw).sum()).backward()
            other.grad = draw.clone()
        scaler.step(scaled)
        scaler.update()
        if step != 2:
            plain.step()
        scaled.zero_grad()
        for weight, other in zip(weights, alone, strict=True):
            torch.testing.assert_close(weight, other)


def test_a_first_step_that_overflows_in_fp16_leaves_sgd_as_it_was(monkeypatch):
    monkeypatch.setattr(torch, "empty_like", lambda tensor, **_: torch.full_like(tensor, 7))  # such memory has anything
    weight = nn.Parameter(torch.rand(10))
    sgd = build_optimizer([weight], replace(SETTINGS, optimizer="sgd", reg=0.0))
    scaler = torch.amp.GradScaler("cpu")
    for gradient in (torch.inf, 1.0):
        sgd.zero_grad()
        scaler.scale((weight * gradient).sum()).backward()
        scaler.step(sgd)
        scaler.update()
    assert torch.equal(sgd.state[weight]["momentum_buffer"], torch.ones(10))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ignore_index": 0}, {"reduction": "sum"}])
def test_losses_of_parts_are_those_of_the_given_function(options, monkeypatch):
    scores, labels = torch.randn(10, 3), torch.tensor([0, 1, 2, 2, 1, 0, 0, 1, 2, 1])  # the last part has two
    loss_fn = nn.CrossEntropyLoss(**options)
    expected = losses_of_parts(loss_fn, scores, labels, 4)
    monkeypatch.setattr(Tensor, "is_cuda", True)  # where it is computed in few operators
    torch.testing.assert_close(losses_of_parts(loss_fn, scores, labels, 4), expected)


# What PyTorch is told


def test_fp32_is_pytorchs_default_and_the_flags_are_restored():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn

    def flags() -> tuple[bool, ...]:
        return matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark

    before = flags()
    allowed = {"fp32": before[:2], "bf16": before[:2], "ieee": (False, False), "tf32": (True, True)}
    for precision, tf32 in allowed.items():
        with numerics(CUDA, precision):
            assert flags() == (*tf32, True, False)
        assert flags() == before
    with numerics(CPU, "tf32"):
        assert flags() == before
    assert before[:2] == (False, True)


def test_the_memory_of_a_trial_is_measured_without_that_of_the_trial_before(monkeypatch):
    alive: list[weakref.ref[Trial]] = []

    def trial(settings: Settings, _: object) -> Trial:
        assert not any(before() for before in alive)
        made = Trial(settings, IMAGES)
        alive.append(weakref.ref(made))
        return made

    monkeypatch.setattr(pace, "_trial", trial)
    monkeypatch.setattr(pace, "default_device", lambda: CUDA)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=8))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 1)
    found = pace.measure_gpu_memory({"one": SETTINGS, "wider": replace(SETTINGS, filters_per_layer=(8,))}, {})
    assert found == {"one": (1, 8), "wider": (1, 8)}


NEWER_NAMES = """
import torch
from tune_cnn.training.devices import numerics

matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
kinds = matmul, cudnn.conv, cudnn.rnn
for part in torch.backends, matmul, cudnn, cudnn.conv:
    for chosen in "ieee", "tf32":
        part.fp32_precision = chosen
        before = [kind.fp32_precision for kind in kinds]
        for precision, expected in ("fp32", [0, 1, 1]), ("ieee", [0, 0, 0]), ("tf32", [1, 1, 1]):
            with numerics(torch.device("cuda"), precision):
                assert [kind.fp32_precision == "tf32" for kind in kinds] == expected
                assert [matmul.allow_tf32, cudnn.allow_tf32] == expected[:2]
            assert [kind.fp32_precision for kind in kinds] == before
"""


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch has no such names before 2.9")
def test_who_sets_precisions_by_pytorchs_newer_names_can_train_and_keeps_them():
    subprocess.run([sys.executable, "-c", NEWER_NAMES], check=True)


@pytest.mark.parametrize(
    ("message", "out_of_memory", "cuda_error"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True, True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True, False),
        ("CUDA error: out of memory", True, True),
        ("CUDA error: an illegal memory access was encountered", False, True),
        ("The size of tensor a (3) must match the size of tensor b (4)", False, False),
    ],
)
def test_errors_of_a_gpu_are_told_apart(message, out_of_memory, cuda_error):
    assert is_out_of_memory(RuntimeError(message)) is out_of_memory
    assert is_cuda_error(RuntimeError(message)) is cuda_error
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))


def test_a_training_that_continues_on_another_kind_of_machine_says_so():
    trial, again = Trial(SETTINGS, IMAGES), Trial(SETTINGS, IMAGES)
    trial.run_epoch()
    state = trial.state_dict()
    again.load_state_dict(state)
    assert again.moved == ""
    state["summary"] = {**state["summary"], "device": "NVIDIA H100, compute capability 9.0"}
    again.load_state_dict(state)
    assert again.moved.startswith("continued on another machine, where the last digits differ (device: NVIDIA H100")


# Tensors that pretend to be on a GPU: an operator of tensors on two devices is an error


class Operators(TorchDispatchMode):
    """Counts the operators, and those that make a program wait for the device."""

    WAITING = {
        "aten._local_scalar_dense.default",
        "aten.nonzero.default",
        "aten.equal.default",
        "aten.is_nonzero.default",
    }

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = str(func) in self.WAITING and args[0].device.type == "cuda"
        self.count["waiting" if waits else "sent"] += 1
        found = func(*args, **(kwargs or {}))
        is_copy = str(func) in ("aten._to_copy.default", "aten.copy_.default")
        tensors = [arg for arg in (*args, found) if isinstance(arg, Tensor)]
        if is_copy and len({tensor.device.type for tensor in tensors}) > 1:
            self.count["copied between devices"] += 1
        return found


@pytest.fixture
def fake_trainer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TorchTrainer]]:
    def network(kind: type[nn.Module]) -> nn.Module:
        with CUDA:
            model = kind(SIZE, 10, [4, 4], 1, [8])
        model.to = lambda *_: model  # such tensors cannot be moved, but are there already
        return model

    def make(kind: type[nn.Module], optimizer: str = "adam") -> TorchTrainer:
        monkeypatch.setattr("torch.optim.swa_utils.deepcopy", lambda _: network(kind))  # nor copied
        model = network(kind)
        built = build_optimizer(model.parameters(), replace(SETTINGS, optimizer=optimizer))
        return TorchTrainer(model, nn.CrossEntropyLoss(), built, average=0.9)

    with FakeTensorMode():
        yield make


@pytest.mark.parametrize("network", [ConvClassifier, YourCodeNet])
def test_an_evaluation_stays_on_the_device_and_never_waits(fake_trainer, network):
    trainer = fake_trainer(network)
    trainer.evaluated.eval()
    batch = torch.zeros(26, *SIZE, dtype=torch.uint8, device=CUDA), torch.zeros(26, dtype=torch.long, device=CUDA)
    with torch.no_grad(), Operators() as operators:
        losses, correct, count = trainer._test_step(batch, 4, [], partial(views, count=6))
    assert (losses.device.type, losses.shape, correct.device.type, count) == ("cuda", (7,), "cuda", 26)
    assert operators.count["waiting"] == 0
    assert operators.count["copied between devices"] == 0


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])  # PyTorch's fused SGD knows no such tensors
def test_an_optimizer_and_the_ema_stay_on_the_device_and_never_wait(fake_trainer, optimizer):
    trainer = fake_trainer(YourCodeNet, optimizer)
    for _ in range(2):  # the first time, states are made
        for weight in trainer.model.parameters():
            weight.grad = torch.zeros_like(weight)
        with Operators() as operators:
            trainer.optimizer.step()
            trainer._average.update_parameters(trainer.model)
    assert operators.count["waiting"] == 0
    assert operators.count["copied between devices"] == 0


def test_augmentation_sends_only_its_draws():
    with FakeTensorMode():
        images = torch.zeros(8, *SIZE, dtype=torch.uint8, device=CUDA)
        with Operators() as operators:
            changed = augmented(images, flip=True, translate=2, cutout=3)
    assert (changed.device.type, changed.shape) == ("cuda", images.shape)
    assert operators.count["copied between devices"] == 1
    assert operators.count["waiting"] == 0


@pytest.mark.parametrize("network", [ConvClassifier, YourCodeNet])
def test_the_backward_pass_stays_on_the_device(network):
    device = torch.device("meta")
    model = network(SIZE, 10, [4, 4], 1, [8]).to(device)
    trainer = TorchTrainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1), device)
    batch = torch.zeros(8, *SIZE, dtype=torch.uint8, device=device), torch.zeros(8, dtype=torch.long, device=device)
    losses, correct, _ = trainer._train_step(batch)
    assert losses.is_meta
    assert correct.is_meta


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "ieee", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("ycn", [False, True])
def test_a_training_is_the_same_each_time_and_after_a_resume(precision, ycn):
    settings = replace(SETTINGS, precision=precision, ycn=ycn, flip=True)
    whole, again, first = (Trial(settings, IMAGES, CUDA) for _ in range(3))
    first.run_epoch()
    state = first.state_dict()
    for trial in (whole, again):
        trial.run()
    resumed = Trial(settings, IMAGES, CUDA)
    resumed.load_state_dict(state)
    resumed.run()
    assert whole.history == again.history == resumed.history


@pytest.mark.gpu
def test_it_learns_what_it_learns_on_cores():
    there, here = Trial(replace(SETTINGS, precision="ieee"), IMAGES, CUDA), Trial(SETTINGS, IMAGES)
    for trial in (there, here):
        trial.run()
    assert there.history.train_loss[:5] == pytest.approx(here.history.train_loss[:5], rel=1e-3)


@pytest.mark.gpu
def test_the_pooling_of_one_place_is_pytorchs():
    images = torch.rand(2, 3, 5, 5, device=CUDA)
    assert torch.equal(AdaptiveMaxPool2d()(images), nn.AdaptiveMaxPool2d(1)(images))
