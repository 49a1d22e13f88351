import copy
import io
import math
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from easy_images import easy_images
from tiny_sweep import trainable, write_config
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from tune_cnn import data
from tune_cnn.data.batches import Batches, evaluation_batches
from tune_cnn.errors import ResultError
from tune_cnn.models import ConvClassifier, YourCodeNet
from tune_cnn.settings import DataSettings
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.train_results import BatchResult, EpochResult
from tune_cnn.training import TorchTrainer
from tune_cnn.training.state import save_state, state_to_bytes

IMAGES = easy_images()


class Fixed(nn.Module):
    """Scores that are the image's own first pixels times a weight: what it classifies is known beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, :3] * self.weight


def known_dataset(right: list[bool]) -> TensorDataset:
    """Images of label 0 that `Fixed` classifies rightly or not, with a score of 2 for the class it chooses."""
    images = torch.zeros(len(right), 1, 1, 3)
    for image, is_right in zip(images, right, strict=True):
        image[0, 0, 0 if is_right else 1] = 2.0
    return TensorDataset(images, torch.zeros(len(right), dtype=torch.long))


RIGHT_LOSS = math.log(math.exp(2) + 2) - 2
WRONG_LOSS = math.log(math.exp(2) + 2)


def fixed_trainer(lr: float = 0.0) -> TorchTrainer:
    model = Fixed()
    return TorchTrainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=lr), "cpu")


def small_trainer(network: type[nn.Module] = ConvClassifier, lr: float = 1e-2) -> TorchTrainer:
    torch.manual_seed(1)
    model = network((3, 8, 8), 4, [4, 4], 1, [12])
    return TorchTrainer(model, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=lr), "cpu")


def small_loaders() -> tuple[DataLoader, DataLoader]:
    return Batches(IMAGES.train, 10, shuffle=True), evaluation_batches(IMAGES.validation, 5, at_least=512)


# Batches and epochs


def test_a_batch_gives_its_mean_loss_and_the_number_of_right_answers():
    trainer = fixed_trainer(lr=1.0)
    batch = next(iter(DataLoader(known_dataset([True, True, False, True]), 4)))
    expected = BatchResult(pytest.approx((3 * RIGHT_LOSS + WRONG_LOSS) / 4), 3)
    assert trainer.test_batch(batch) == expected
    assert trainer.model.weight == 1
    assert trainer.train_batch(batch) == expected
    assert trainer.model.weight != 1


def test_an_epoch_gives_every_loss_and_the_accuracy_in_percent():
    loader = DataLoader(known_dataset([True, True, False, True, False]), 2)
    losses = [RIGHT_LOSS, (RIGHT_LOSS + WRONG_LOSS) / 2, WRONG_LOSS]
    # Every image counts once: 3 of 5, whatever the size of the last batch.
    expected = EpochResult(pytest.approx(losses), 60.0)
    assert fixed_trainer().train_epoch(loader, verbose=False) == expected
    assert fixed_trainer().test_epoch(loader, verbose=False) == expected


def test_max_batches_ends_an_epoch_early():
    loader = DataLoader(known_dataset([True, False, True, True, True]), 2)
    assert fixed_trainer().train_epoch(loader, verbose=False, max_batches=2).accuracy == 75.0
    assert fixed_trainer().test_epoch(loader, verbose=False, max_batches=1).accuracy == 50.0
    assert len(fixed_trainer().train_epoch(loader, verbose=False, max_batches=9).losses) == 3


def test_training_changes_the_weights_and_testing_does_not():
    trainer = small_trainer(YourCodeNet)
    train, validation = small_loaders()

    def state() -> bytes:
        return state_to_bytes(trainer.model.state_dict())

    before = state()
    trainer.test_epoch(validation, verbose=False)
    assert state() == before
    assert not trainer.model.training
    trainer.train_epoch(train, verbose=False)
    assert state() != before
    assert trainer.model.training


@pytest.mark.parametrize("epoch", ["train_epoch", "test_epoch"])
def test_an_epoch_without_batches_is_an_error(epoch):
    with pytest.raises(ValueError, match="there are no batches to go through"):
        getattr(fixed_trainer(), epoch)(DataLoader(known_dataset([])), verbose=False)


def test_a_tiny_set_is_learnt_by_heart():
    """The check of the assignment, for longer: shapes are harder to learn by heart than photographs."""
    torch.manual_seed(42)
    images = data.load(DataSettings("shapes", in_size=(3, 16, 16), train_images=60, test_images=1)).train
    dl_train = Batches(images, 2)
    model = ConvClassifier((3, 16, 16), 10, filters=[32], pool_every=1, hidden_dims=[100])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    trainer = TorchTrainer(model, torch.nn.CrossEntropyLoss(), optimizer, "cpu")
    accuracies = [trainer.train_epoch(dl_train, max_batches=25, verbose=False).accuracy for _ in range(44)]
    assert max(accuracies) >= 95


def test_the_trainer_computes_where_the_model_is_if_no_device_is_named():
    trainer = TorchTrainer(Fixed(), nn.CrossEntropyLoss(), torch.optim.SGD([torch.zeros(1)]))
    assert trainer.device == torch.device("cpu")
    assert TorchTrainer(nn.Flatten(), nn.CrossEntropyLoss(), trainer.optimizer).device == torch.device("cpu")


def test_a_loss_may_be_a_tensor_of_one_value():
    _, validation = small_loaders()
    trainer, plain = small_trainer(), small_trainer()
    trainer.loss_fn = lambda scores, labels: nn.functional.cross_entropy(scores, labels)[None]
    assert trainer.test_epoch(validation, verbose=False) == plain.test_epoch(validation, verbose=False)


def test_images_of_bytes_and_of_floats_give_equal_numbers():
    bytes_, labels = next(iter(Batches(IMAGES.train, 40)))
    dataset = TensorDataset(bytes_, labels), TensorDataset(bytes_.float() / 255, labels)
    assert dataset[0].tensors[0].dtype == torch.uint8
    of_bytes, of_floats = (small_trainer().train_epoch(DataLoader(d, 8), verbose=False) for d in dataset)
    assert of_bytes == of_floats


@pytest.mark.parametrize("network", [ConvClassifier, YourCodeNet])
def test_evaluation_in_large_batches_reports_the_losses_of_small_ones(network):
    small, large = Batches(IMAGES.train, 7), evaluation_batches(IMAGES.train, 7, at_least=25)
    assert (len(small), len(large)) == (9, 3)
    trainer = small_trainer(network)
    trainer.train_epoch(small, verbose=False)
    expected, result = trainer.test_epoch(small, verbose=False), trainer.test_epoch(large, verbose=False)
    assert len(result.losses) == 9
    assert result.losses == pytest.approx(expected.losses, rel=1e-5)
    assert result.accuracy == expected.accuracy


class Count(TorchDispatchMode):
    """Counts the operators for which something holds, told by the operator and its arguments."""

    def __init__(self, holds: Callable[[Any, tuple[Any, ...]], bool]) -> None:
        super().__init__()
        self.holds = holds
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += self.holds(func, args)
        return func(*args, **(kwargs or {}))


# With which Python asks for the value of a tensor, and would wait for a GPU; inference mode does not take `item` apart.
READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default)


@pytest.mark.parametrize("epoch", ["train_epoch", "test_epoch"])
def test_no_value_is_read_per_batch(epoch):
    def reads(max_batches: int) -> int:
        trainer = small_trainer()
        trainer.optimizer = torch.optim.Adam(trainer.model.parameters(), fused=True)
        with Count(lambda func, _: func in READS) as reads:
            getattr(trainer, epoch)(Batches(IMAGES.train, 8, shuffle=True, max_batches=max_batches), verbose=False)
        return reads.count

    assert 0 < reads(2) == reads(7) <= 4  # the loader's draws, and the accuracy


def test_an_evaluation_in_bf16_casts_a_weight_once():
    trainer = small_trainer()
    trainer.precision = "bf16"
    weight, cast = trainer.model.classifier[0].weight, torch.ops.aten._to_copy.default
    with Count(lambda func, args: func is cast and args[0] is weight) as casts:
        trainer.test_epoch(Batches(IMAGES.train, 8), verbose=False)
    assert casts.count == 1


# What is shown


def test_progress_bar_ends_with_the_average_loss_and_the_accuracy(capsys):
    loader = DataLoader(known_dataset([True, True, False, True]), 2)
    trainer = fixed_trainer()
    trainer.train_epoch(loader)
    trainer.test_epoch(loader)
    out, err = capsys.readouterr()
    assert out == ""
    loss = f"{(3 * RIGHT_LOSS + WRONG_LOSS) / 4:.3f}"
    lines = [line.split("\r")[-1] for line in err.split("\n")]
    assert re.match(rf"train_batch \(Avg\. Loss {loss}, Accuracy 75\.0\): 100%\|.*\| 2/2 \[", lines[0])
    assert re.match(rf"test_batch \(Avg\. Loss {loss}, Accuracy 75\.0\): 100%\|.*\| 2/2 \[", lines[1])


def test_nothing_is_shown_without_verbose(capsys):
    loader = DataLoader(known_dataset([True]), 1)
    fixed_trainer().train_epoch(loader, verbose=False)
    fixed_trainer().fit(loader, loader, 3, early_stopping=1, print_every=0)
    assert capsys.readouterr() == ("", "")


def test_fit_shows_each_epoch_and_why_it_ended(capsys):
    loader = DataLoader(known_dataset([True, False]), 1)
    fixed_trainer().fit(loader, loader, 10, early_stopping=2)
    assert capsys.readouterr().out.splitlines() == [
        "--- EPOCH 1/10 ---",
        "--- EPOCH 2/10 ---",
        "--- EPOCH 3/10 ---",
        "*** stopped early: no better for 2 epochs",
    ]


def test_print_every_shows_some_epochs_and_the_last(capsys):
    loader = DataLoader(known_dataset([True, False]), 1)
    fixed_trainer().fit(loader, loader, 6, print_every=2)
    out, err = capsys.readouterr()
    assert re.findall(r"EPOCH (\d)/6", out) == ["1", "3", "5", "6"]
    assert err.count("\n") == 2 * 4


# Fitting


def test_fit_returns_the_history():
    loader = DataLoader(known_dataset([True, True, False]), 2)
    validation = DataLoader(known_dataset([True, False]), 1)
    result = fixed_trainer().fit(loader, validation, num_epochs=2, print_every=0)
    assert result.num_epochs == 2
    assert result.train_loss == pytest.approx([RIGHT_LOSS, WRONG_LOSS] * 2)
    assert result.train_acc == pytest.approx([200 / 3] * 2)
    assert result.test_loss == pytest.approx([RIGHT_LOSS, WRONG_LOSS] * 2)
    assert result.test_acc == [50.0] * 2


def test_fit_stops_after_epochs_without_improvement():
    loader = DataLoader(known_dataset([True, False]), 1)
    assert fixed_trainer().fit(loader, loader, 10, early_stopping=3, print_every=0).num_epochs == 4
    assert fixed_trainer().fit(loader, loader, 10, early_stopping=None, print_every=0).num_epochs == 10


def test_fit_stops_when_the_loss_is_no_number(capsys):
    train, validation = small_loaders()
    result = small_trainer(lr=1e30).fit(train, validation, 10)
    assert result.num_epochs == 1
    assert "*** diverged: the loss is not a finite number\n" in capsys.readouterr().out


def test_fit_limits_the_training_batches_only():
    train, validation = small_loaders()
    result = small_trainer().fit(train, validation, 2, print_every=0, max_batches=3)
    assert len(result.train_loss) == 2 * 3
    assert len(result.test_loss) == 2 * 6


def test_post_epoch_fn_is_told_what_happened():
    seen = []
    train, validation = small_loaders()
    result = small_trainer().fit(train, validation, 3, print_every=2, post_epoch_fn=lambda *args: seen.append(args))
    assert [(epoch, verbose) for epoch, _, _, verbose in seen] == [(0, True), (1, False), (2, True)]
    assert [train.accuracy for _, train, _, _ in seen] == result.train_acc
    assert [loss for _, _, validation, _ in seen for loss in validation.losses] == result.test_loss


# Checkpoints


class Interrupt(Exception):
    pass


def interrupt_after(epochs: int):
    def post_epoch_fn(epoch: int, *_: object) -> None:
        if epoch + 1 == epochs:
            raise Interrupt

    return post_epoch_fn


def test_a_checkpoint_is_saved_when_the_validation_accuracy_improves(tmp_path):
    path = tmp_path / "deep" / "name.pt"
    saved: list[bool] = []
    before = [b""]

    def look(*_: object) -> None:
        content = path.read_bytes()
        saved.append(content != before[0])
        before[0] = content

    train, validation = small_loaders()
    result = small_trainer().fit(
        train, validation, 8, checkpoints=str(tmp_path / "deep" / "name"), print_every=0, post_epoch_fn=look
    )
    bests = [max(result.test_acc[: epoch + 1]) for epoch in range(8)]
    assert saved == [epoch == 0 or bests[epoch] > bests[epoch - 1] for epoch in range(8)]
    assert 2 <= sum(saved) < 8  # so that both cases are seen
    assert [file.name for file in path.parent.iterdir()] == ["name.pt"]


@pytest.mark.parametrize("network", [ConvClassifier, YourCodeNet])
@pytest.mark.parametrize("interrupted_after", [1, 3, 6])
def test_an_interrupted_fit_ends_bit_for_bit_where_an_uninterrupted_one_does(
    tmp_path, capsys, network, interrupted_after
):
    train, validation = small_loaders()
    whole = small_trainer(network)
    torch.manual_seed(2)
    expected = whole.fit(train, validation, 6, print_every=0)

    name = str(tmp_path / "name")
    trainer = small_trainer(network)
    torch.manual_seed(2)
    with pytest.raises(Interrupt):
        trainer.fit(train, validation, 6, name, print_every=0, post_epoch_fn=interrupt_after(interrupted_after))
    resumed = small_trainer(network, lr=9)  # the checkpoint brings the learning rate too
    torch.manual_seed(1234)
    result = resumed.fit(train, validation, 6, name, print_every=0)
    assert expected.first_difference(result) is None
    assert state_to_bytes(resumed.model.state_dict()) == state_to_bytes(whole.model.state_dict())
    assert capsys.readouterr().out == f"*** Continuing from checkpoint file {name}.pt\n"


def test_a_state_of_other_shapes_than_the_weights_is_continued_where_its_optimizer_wants_it_so():
    trainers, (_, batches) = (small_trainer(), small_trainer()), small_loaders()
    for trainer in trainers:
        trainer.optimizer = torch.optim.Adafactor(trainer.model.parameters())
    trainers[0].train_epoch(batches, verbose=False)
    trainers[1].load_state_dict(copy.deepcopy(trainers[0].state_dict()))
    assert trainers[0].train_epoch(batches, verbose=False) == trainers[1].train_epoch(batches, verbose=False)


def test_without_a_checkpoint_file_training_starts(tmp_path, capsys):
    train, validation = small_loaders()
    small_trainer().fit(train, validation, 1, str(tmp_path / "name"), print_every=0)
    assert capsys.readouterr().out == ""


class Code:
    """What a malicious file would hold: unpickling it runs code."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def flip_a_weight(content: bytes) -> bytes:
    weight = small_trainer().model.classifier[0].weight.detach().numpy().tobytes()
    middle = content.index(weight) + len(weight) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def other_archive(_: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "not a checkpoint")
    return file.getvalue()


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (flip_a_weight, "damaged"),
        (lambda content: content[: len(content) // 2], "damaged"),
        (lambda content: content[:-1], "damaged"),
        (lambda content: b"", "damaged"),
        (lambda content: b"#!/bin/sh", "damaged"),
        (other_archive, "damaged"),
        (lambda content: pickle.dumps(Code()), "damaged"),
        (lambda content: state_to_bytes({"model": Code()}), "not a checkpoint of ours"),
        (lambda content: state_to_bytes([1, 2]), "not a checkpoint of ours"),
        (lambda content: state_to_bytes({}), "does not continue this training"),
        (lambda content: state_to_bytes({"model": {}, "history": 3}), "does not continue this training"),
    ],
)
def test_a_damaged_checkpoint_is_an_error_that_names_the_file(tmp_path, monkeypatch, damage, fault):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "name.pt"
    save_state(path, small_trainer().state_dict())
    path.write_bytes(damage(path.read_bytes()))
    train, validation = small_loaders()
    with pytest.raises(ResultError, match=rf"name\.pt: .*{fault}.*; delete it") as caught:
        small_trainer().fit(train, validation, 1, str(tmp_path / "name"), print_every=0)
    assert "\n" not in str(caught.value)
    assert not Path("executed").exists()


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    train, validation = small_loaders()
    small_trainer(YourCodeNet).fit(train, validation, 1, str(tmp_path / "name"), print_every=0)
    with pytest.raises(
        ResultError, match=r"name\.pt: does not continue this training: feature.*missing; delete it, or"
    ):
        small_trainer().fit(train, validation, 2, str(tmp_path / "name"), print_every=0)


# Compiling


def test_a_compiled_network_trains_to_the_same_losses(monkeypatch):
    """Traced, but not turned into machine code, which takes half a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    losses = []
    for compile in (False, True):
        torch.manual_seed(1)
        model = ConvClassifier((3, 8, 8), 4, [4], 1, [])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer = TorchTrainer(model, nn.CrossEntropyLoss(), optimizer, "cpu", compile=compile)
        losses.append(trainer.train_epoch(Batches(IMAGES.train, 20), verbose=False).losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_sweep_tells_what_could_not_be_done_to_save_time(monkeypatch, tmp_path):
    def refuse(*_: object) -> None:
        raise torch._dynamo.exc.BackendCompilerFailed(None, RuntimeError("no compiler"), None)

    monkeypatch.setattr(torch, "compile", lambda *_, **__: refuse)
    experiment = write_config(tmp_path)[0]
    compiled = replace(experiment, settings=replace(experiment.settings, compile=True))
    worker = trainable(compiled, SweepFolder(str(tmp_path), "tiny"))
    assert [warning[:26] for warning in worker.step()["warnings"]] == ["compile: not possible here"]
    assert worker.step()["warnings"] == []


def test_a_sweep_tells_of_a_checkpoint_that_is_damaged(tmp_path):
    experiment, folder = write_config(tmp_path)[0], SweepFolder(str(tmp_path), "tiny")
    folder.trial(experiment.settings).folder.write("epoch_0001.pt", b"no checkpoint")
    (warning,) = trainable(experiment, folder).step()["warnings"]
    assert "epoch_0001.pt: damaged" in warning


def test_where_nothing_can_be_compiled_the_network_runs_as_it_is(monkeypatch):
    def refuse(*_: object) -> None:
        raise torch._dynamo.exc.BackendCompilerFailed(None, RuntimeError("no compiler"), None)

    monkeypatch.setattr(torch, "compile", lambda *_, **__: refuse)
    model = ConvClassifier((3, 8, 8), 4, [4], 1, [])
    trainer = TorchTrainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters()), compile=True)
    images, labels = next(iter(Batches(IMAGES.train, 20)))
    with pytest.warns(UserWarning, match="compile: not possible here"):
        first = trainer.test_batch((images, labels))
    assert trainer.test_batch((images, labels)) == first
