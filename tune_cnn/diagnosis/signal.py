"""The signal in an untrained network: logit spread, gradients and dead ReLUs of one forward and one backward pass."""

import json
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tune_cnn import models
from tune_cnn.data import ImageSet, first_images
from tune_cnn.diagnosis.verdicts import Verdict, judge
from tune_cnn.errors import DataError
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.texts import named

# Images in the batch: few enough that a wide network takes a core about a second, enough to estimate a spread.
MOST_IMAGES = 50
_FEWEST_IMAGES = 8
_MULTIPLY_ADDS = 10e9  # of the batch's forward pass, at most


@dataclass(frozen=True)
class Diagnosis:
    """Outlook of an untrained network."""

    verdict: Verdict
    reason: str  # one sentence
    remedies: tuple[str, ...]  # what to change, each a phrase; empty if it trains
    images: int  # in the batch
    score_spread: float  # logit spread: standard deviation of the logits over the images, mean over the classes
    gradient_to_weight: tuple[float, ...]  # norm of gradient / of weight, by conv layer (if none, by weight)
    dead_units: tuple[float, ...]  # fraction of dead ReLUs of each conv layer: filters that no image activates

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values, floats to four significant digits."""
        values = json.dumps(asdict(self))
        return json.loads(values, parse_float=lambda number: float(f"{float(number):.4g}"))  # type: ignore[no-any-return]


def diagnose(
    settings: Settings, train: ImageSet, device: torch.device | str = "cpu", train_count: int | None = None
) -> Diagnosis:
    """Build the network as the trial does, and predict from its first batch whether it will learn.

    PyTorch's random state is restored. Without a seed, the weights differ from the trial's. `train` holds the trial's
    training images, or the first of `train_count`. Errors are those of `models.build`.
    """
    device = torch.device(device)
    affordable = int(_MULTIPLY_ADDS // max(models.cost(settings).multiply_adds, 1))
    count = min(train.count, MOST_IMAGES, max(affordable, _FEWEST_IMAGES))
    # A manual seed also seeds the GPUs; if CUDA is not initialised, reading their state would initialise it.
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=gpus):
        if settings.seed is not None:
            torch.manual_seed(settings.seed)
        model = models.build(settings).to(device)
        pixels = torch.from_numpy(train.images[:count].copy()).to(device)  # (B, H, W, C); the trial's may be read-only
        images = pixels.permute(0, 3, 1, 2).float().div_(255)
        labels = torch.from_numpy(train.labels[:count].copy()).to(device)

        convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        dead_units: list[Tensor] = []

        def count_dead(_module: nn.Module, _inputs: Any, output: Tensor) -> None:  # (B, C, H, W) or (C, H, W)
            dead_units.append((output.detach().movedim(-3, 0).flatten(1).amax(dim=1) <= 0).float().mean())

        for module in norms or convs:  # input of each conv layer's ReLU, as far as is known
            module.register_forward_hook(count_dead)
        scores = model(images)  # (B, classes)
        loss = nn.functional.cross_entropy(scores, labels, label_smoothing=settings.label_smoothing)
        # Weights of a custom network may be frozen, or start as zeros, to which no gradient can be compared.
        candidates = [conv.weight for conv in convs], [*model.parameters()]
        learnable = ([weight for weight in group if weight.requires_grad and weight.any()] for group in candidates)
        weights = next(filter(None, learnable), [])
        gradients = torch.autograd.grad(loss, weights, materialize_grads=True) if weights else ()

    weights = [weight.detach() for weight in weights]
    ratios = [(g.norm() / w.norm()).item() for g, w in zip(gradients, weights, strict=True)] or [0.0]
    spread = scores.detach().double().std(dim=0).mean().item()
    epoch = min(settings.batches, math.ceil((train_count or train.count) / settings.bs_train))  # batches per epoch
    steps = settings.epochs * epoch
    # If no epoch is better than the first, early stopping ends the training after this many epochs.
    patience = settings.epochs if settings.early_stopping is None else settings.early_stopping + 1
    if settings.optimizer == "sgd":
        relative_change = steps * settings.lr / (1 - settings.momentum) * max(ratios)
    elif settings.optimizer == "muon":
        relative_change = steps * settings.lr
    else:  # Adam and AdamW
        smallest = min((weight.square().mean().sqrt().item() for weight in weights), default=math.inf)
        relative_change = steps * settings.lr / smallest
    return Diagnosis(
        **judge(settings, spread, relative_change, batches=min(settings.epochs, patience) * epoch)._asdict(),
        images=count,
        score_spread=spread,
        gradient_to_weight=tuple(ratios),
        dead_units=tuple(float(dead) for dead in dead_units),
    )


class Diagnoses(NamedTuple):
    """Result of `diagnose_all`."""

    by_trial: dict[str, Diagnosis]  # by trial id
    left_out: list[str]  # why trials have no diagnosis, one line per reason


def diagnose_all(trials: Iterable[Settings], download: bool = True, within_s: float = math.inf) -> Diagnoses:
    """Diagnose each distinct trial once, on the first images of its data source.

    The trials' data must be resolved. Without `download`, trials whose images are missing get no diagnosis. The
    cheapest networks come first; none begins after `within_s` seconds.

    Raises:
        DataError: With `download`: images cannot be found, read or downloaded.
    """
    distinct = {settings.trial_id: settings for settings in trials}
    ended = time.monotonic() + within_s
    first = cache(first_images)
    found: dict[str, Diagnosis] = {}
    left_out: list[str] = []
    missing: set[DataSettings] = set()  # or broken
    by_cost = sorted(distinct.items(), key=lambda item: models.cost(item[1]).multiply_adds)
    for done, (trial_id, settings) in enumerate(by_cost):
        if settings.data in missing:
            continue
        if time.monotonic() > ended:
            late = f"{len(distinct) - done} of {len(distinct)} trials within {within_s:g} s"
            left_out.append(f"no verdict on {late}; tune-cnn diagnose has no time limit")
            break
        try:
            images, count = first(settings.data, MOST_IMAGES, download)
            found[trial_id] = diagnose(settings, images, train_count=count)
        except DataError as error:
            if download:
                raise
            missing.add(settings.data)
            left_out.append(f"no verdict without images: {error}")
        except Exception as error:
            if settings.model is None:
                raise
            left_out.append(f"no verdict on {settings.network}, which may train all the same: {named(error)}")
    in_order = {trial_id: found[trial_id] for trial_id in distinct if trial_id in found}
    return Diagnoses(in_order, list(dict.fromkeys(left_out)))
