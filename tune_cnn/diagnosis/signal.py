"""The signal in an untrained network: logit spread, gradients and dead ReLUs of one forward and one backward pass."""

import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tune_cnn import models
from tune_cnn.data import ImageSet, first_images
from tune_cnn.diagnosis.verdicts import Verdict, judge
from tune_cnn.errors import DataError
from tune_cnn.settings import DataSettings, Settings

# Images in the batch: few enough that a wide network takes about a second of one core, enough to estimate a spread.
MOST_IMAGES = 50
_FEWEST_IMAGES = 8
_MULTIPLY_ADDS = 10e9  # of all forward passes together


@dataclass(frozen=True)
class Diagnosis:
    """Outlook of an untrained network.

    Attributes:
        verdict: `trains`, `at risk` or `will not learn`.
        reason: Why, in a sentence.
        remedies: What to change, each a phrase; empty if it trains.
        images: Number of images in the batch.
        score_spread: Logit spread: standard deviation of the logits over the images, mean over the classes.
        gradient_to_weight: For each conv layer (without any, each weight), the norm of its gradient divided by that of
            its weights.
        dead_units: For each conv layer, the fraction of dead ReLUs: filters that no image activates.
    """

    verdict: Verdict
    reason: str
    remedies: tuple[str, ...]
    images: int
    score_spread: float
    gradient_to_weight: tuple[float, ...]
    dead_units: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values, the numbers to four digits."""

        def rounded(value: Any) -> Any:
            if isinstance(value, tuple):
                return [rounded(item) for item in value]
            return float(f"{value:.4g}") if isinstance(value, float) else value

        return {key: rounded(value) for key, value in asdict(self).items()}


def diagnose(
    settings: Settings, train: ImageSet, device: torch.device | str = "cpu", train_count: int | None = None
) -> Diagnosis:
    """Build the network as the trial does, and predict from its first batch whether it will learn.

    PyTorch's random state is restored.

    Args:
        settings: The trial's; without a seed, the network has other weights than the trial's.
        train: The trial's training images; the first of them are the batch.
        device: Where to compute.
        train_count: How many training images there are, if `train` has only the first of them.

    Raises:
        ValueError: The poolings would halve the image to less than 1x1.
    """
    device = torch.device(device)
    affordable = int(_MULTIPLY_ADDS // models.cost(settings).multiply_adds)
    count = min(train.count, MOST_IMAGES, max(affordable, _FEWEST_IMAGES))
    # A manual seed also seeds the GPUs; asking them for their state would initialise CUDA.
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=gpus):
        if settings.seed is not None:
            torch.manual_seed(settings.seed)
        model = models.build(settings).to(device)
        pixels = torch.from_numpy(train.images[:count].copy()).to(device)  # (B, H, W, C); the trial's may be read-only
        images = pixels.permute(0, 3, 1, 2).float().div_(255)
        labels = torch.from_numpy(train.labels[:count].copy()).to(device)

        convs = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
        convs = convs or [weight for weight in model.parameters() if weight.requires_grad]
        dead_units: list[Tensor] = []
        for module in _before_relu(model):
            module.register_forward_hook(lambda _module, _inputs, output: dead_units.append(_dead(output)))
        scores = model(images)  # (B, classes)
        loss = nn.functional.cross_entropy(scores, labels, label_smoothing=settings.label_smoothing)
        gradients = torch.autograd.grad(loss, convs, materialize_grads=True)

    weights = [weight.detach() for weight in convs]
    ratios = torch.stack([g.norm() / w.norm() for g, w in zip(gradients, weights, strict=True)]).tolist()
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
        relative_change = steps * settings.lr / torch.stack([w.square().mean().sqrt() for w in weights]).min().item()
    return Diagnosis(
        **judge(settings, spread, relative_change, batches=min(settings.epochs, patience) * epoch)._asdict(),
        images=count,
        score_spread=spread,
        gradient_to_weight=tuple(ratios),
        dead_units=tuple(float(dead) for dead in dead_units),
    )


class Diagnoses(NamedTuple):
    """What `diagnose_all` found."""

    by_trial: dict[str, Diagnosis]  # by trial id
    left_out: list[str]  # why trials have none, a line for each reason


def diagnose_all(trials: Iterable[Settings], download: bool = True, within_s: float = math.inf) -> Diagnoses:
    """Diagnose each distinct trial once, on the first images of its data source.

    Args:
        trials: Their settings, with resolved data.
        download: Whether images may be downloaded. If not, trials whose images are not there have no diagnosis.
        within_s: Begin no further diagnosis after so many seconds; those that cost least come first.

    Raises:
        DataError: Images cannot be found, read or downloaded, though they may be downloaded.
    """
    distinct = {settings.trial_id: settings for settings in trials}
    ended = time.monotonic() + within_s
    images: dict[DataSettings, tuple[ImageSet, int]] = {}
    found: dict[str, Diagnosis] = {}
    absent: dict[DataSettings, str] = {}
    late = 0
    for trial_id, settings in sorted(distinct.items(), key=lambda item: models.cost(item[1]).multiply_adds):
        if settings.data not in images and settings.data not in absent:
            try:
                images[settings.data] = first_images(settings.data, MOST_IMAGES, download)
            except DataError as error:
                if download:
                    raise
                absent[settings.data] = str(error)
        if settings.data in absent:
            continue
        if time.monotonic() > ended:
            late += 1
        else:
            train, count = images[settings.data]
            found[trial_id] = diagnose(settings, train, train_count=count)
    left_out = [f"no verdict without images: {reason}" for reason in dict.fromkeys(absent.values())]
    if late:
        remedy = "tune-cnn diagnose takes its time"
        left_out.append(f"no verdict on {late} of {len(distinct)} trials within {within_s:g} s; {remedy}")
    return Diagnoses({trial_id: found[trial_id] for trial_id in distinct if trial_id in found}, left_out)


def _before_relu(model: nn.Module) -> list[nn.Module]:
    """The modules whose output goes into the ReLU of each conv layer: the last ones before it, as far as is known."""
    norms: list[nn.Module] = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    return norms or [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def _dead(before_relu: Tensor) -> Tensor:
    """Fraction of the channels of (B, C, H, W) that are nowhere positive."""
    return (before_relu.detach().amax(dim=(0, 2, 3)) <= 0).float().mean()
