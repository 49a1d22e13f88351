"""Training by a CUDA graph, on cores: the operators of a step are recorded, and repeated on the same memory.

As on a GPU, a repetition runs no Python, and whatever Python would do differently in the next step is missing.
"""

import copy
import gc
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_gpu import CPU, CUDA, IMAGES, SETTINGS
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tune_cnn.settings import Settings
from tune_cnn.training import cuda_graph
from tune_cnn.trial import Trial


class Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.replays = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, result in self.calls:
            for there, again in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(there, Tensor) and there.data_ptr() != again.data_ptr():
                    there.copy_(again)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    made: list[Recording] = []

    def capture(run: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        made.append(Recording())
        with made[-1], torch.random.fork_rng([]):  # a GPU only records
            results = run()
        return results, made[-1].replay

    monkeypatch.setattr(cuda_graph, "on_side_stream", lambda run: run())
    monkeypatch.setattr(cuda_graph, "capture", capture)
    return made


def trial_of(settings: Settings) -> Trial:
    trial = Trial(settings, IMAGES, CPU)
    trainer = trial.trainer
    trainer._graph = cuda_graph.GraphedStep(trainer.model, trainer.optimizer)
    return trial


def run(trial: Trial, epochs: int = 2) -> Trial:
    for _ in range(epochs):
        trial.run_epoch()
    return trial


def same(one: Trial, other: Trial) -> bool:
    weights = zip(one.best_weights.values(), other.best_weights.values(), strict=True)
    return one.history == other.history and all(torch.equal(a, b) for a, b in weights)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "muon"])
@pytest.mark.parametrize("ycn", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_by_a_graph_is_bit_for_bit_the_same(recordings, optimizer, ycn, precision):
    settings = replace(SETTINGS, optimizer=optimizer, ycn=ycn, precision=precision, flip=True, translate=1)
    assert same(run(Trial(settings, IMAGES)), run(trial_of(settings)))
    (recording,) = recordings
    whole_batches = len(IMAGES.train.labels) // settings.bs_train
    assert len(IMAGES.train.labels) % settings.bs_train, "the last batch of an epoch is smaller"
    assert recording.replays == 3 + 2 * whole_batches


def test_a_training_that_continues_captures_anew(recordings):
    whole, first = run(trial_of(SETTINGS)), run(trial_of(SETTINGS), epochs=1)
    state = copy.deepcopy(first.state_dict())
    resumed = run(trial_of(SETTINGS), epochs=1)  # of which nothing is left
    resumed.load_state_dict(state)
    run(resumed, epochs=1)
    assert same(whole, resumed)
    assert len(recordings) == 4


def test_dropout_draws_what_it_draws_without_a_graph(recordings, monkeypatch):
    monkeypatch.setattr("tune_cnn.models.networks.ConvClassifier.forward", with_dropout)
    assert same(run(Trial(SETTINGS, IMAGES)), run(trial_of(SETTINGS)))
    assert recordings[0].replays > 3


def with_dropout(model: Any, images: Tensor) -> Tensor:
    features = nn.functional.dropout(model.feature_extractor(images), 0.5, model.training)
    return model.classifier(features.flatten(1))


def test_a_step_that_cannot_be_captured_runs_as_it_is(recordings, monkeypatch):
    def refuse(run: Callable[[], Any]) -> None:
        run()  # and has changed the weights by then
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ...")

    monkeypatch.setattr(cuda_graph, "capture", refuse)
    with pytest.warns(UserWarning, match=r"^cuda_graph: not possible here, .* \(CUDA error: .* is capturing\)$"):
        refused = run(trial_of(SETTINGS))
    assert same(run(Trial(SETTINGS, IMAGES)), refused)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.NAdam])
def test_an_optimizer_that_cannot_be_captured_trains_as_it_would(recordings, kind):
    def trained(has_graph: bool) -> Trial:
        trial = Trial(SETTINGS, IMAGES)
        trainer = trial.trainer
        trainer.optimizer = kind(trainer.model.parameters())
        trainer._graph = cuda_graph.GraphedStep(trainer.model, trainer.optimizer) if has_graph else None
        return run(trial)

    with pytest.warns(UserWarning, match="cuda_graph: not possible here, .*must be on supported devices"):
        graphed = trained(True)
    assert same(trained(False), graphed)


def test_a_graph_leaves_no_trace_in_the_optimizers_settings_nor_in_what_a_network_counts(recordings):
    trial = trial_of(SETTINGS)
    counted = trial.trainer.model
    counted.register_buffer("batches", torch.zeros(()), persistent=False)
    counted.register_forward_pre_hook(lambda *_: counted.batches.add_(counted.training) and None)
    run(trial, epochs=1)
    assert counted.batches == len(trial.train_batches)
    assert not any(group["capturable"] for group in trial.trainer.optimizer.param_groups)


def test_a_network_trained_by_a_graph_goes_with_its_trial(recordings):
    trial = run(trial_of(SETTINGS), epochs=1)
    recordings.clear()
    gone = weakref.ref(trial.trainer.model)
    gc.disable()
    try:
        del trial
        assert gone() is None
    finally:
        gc.enable()


def test_a_step_that_a_graph_would_not_repeat_runs_as_it_is(recordings):
    trial = trial_of(SETTINGS)
    trial.trainer.train_loss_fn = Weighted()
    with pytest.warns(UserWarning, match="its losses differ"):
        run(trial, epochs=1)
    assert recordings[0].replays == 3


class Weighted:
    """A loss that depends on a number of Python's, which changes from batch to batch."""

    calls = 0

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        return nn.functional.cross_entropy(scores, labels) * self.calls


@pytest.mark.parametrize("changes", [{"schedule": "linear"}, {"warmup": 0.1}, {"precision": "fp16"}])
def test_what_changes_from_batch_to_batch_in_python_is_not_captured(changes):
    settings = replace(SETTINGS, **changes)
    trial = Trial(settings, IMAGES, CPU)
    assert trial.trainer._graph is None
    with pytest.warns(UserWarning, match="not with a schedule, a warm-up or fp16"):
        type(trial.trainer)(
            trial.trainer.model, nn.CrossEntropyLoss(), trial.trainer.optimizer, CPU,
            scheduler=trial.trainer.scheduler, precision=settings.precision, cuda_graph=True,
        )  # fmt: skip


def test_without_a_gpu_the_setting_changes_nothing_nor_the_trial():
    settings = replace(SETTINGS, cuda_graph=True)
    assert settings.trial_id == SETTINGS.trial_id
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Trial(settings, IMAGES, CPU).trainer._graph is None


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "ieee", "tf32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "muon"])
@pytest.mark.parametrize("ycn", [False, True])
def test_on_a_gpu_a_graph_gives_the_numbers_of_the_step_as_it_is(precision, optimizer, ycn):
    settings = replace(SETTINGS, precision=precision, optimizer=optimizer, ycn=ycn, flip=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a graph that is not used
        trials = [Trial(replace(settings, cuda_graph=on), IMAGES, CUDA) for on in (False, True, True, True)]
        for trial in trials:
            trial.run()
    assert all(same(trials[0], other) for other in trials[1:])
