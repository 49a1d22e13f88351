"""Will a network learn? Told from one forward and one backward pass of a real batch, before the training."""

import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tune_cnn import models
from tune_cnn.data import ImageSet, first_images
from tune_cnn.errors import DataError
from tune_cnn.settings import DataSettings, Settings

Verdict = Literal["trains", "at risk", "will not learn"]
VERDICTS: tuple[Verdict, ...] = ("trains", "at risk", "will not learn")

# Images in the batch: what keeps a wide network's two passes near a second of one core, but enough to tell a spread.
MOST_IMAGES = 50
_FEWEST_IMAGES = 8
_MULTIPLY_ADDS = 10e9  # of all forward passes together

# The limits are calibrated on some 190 short trainings over K, L, P, hidden_dims, init, reg, lr and optimizer, on drawn
# shapes and on real images. Below the first of each pair next to none learned, above the second nearly all.
#
# Weight decay that is part of the gradient (that of Adam and SGD) pulls every weight to 0, and with the weights goes
# the signal. To keep the weights costs a loss in proportion to reg; what the scores tell of the images is worth, at
# first, one in proportion to their variance. So the spread of the scores is held against the root of reg.
_SPREAD_TO_ROOT_REG = (5e-3, 1.1e-2)
# Without such decay, Adam's steps are as long however small the gradient. What ends it is the rounding of float32:
# scores near 0.1 that differ by less than the first of these differ in their last bit or two.
_LEAST_SPREAD = (1e-8, 1e-7)
# Adam moves each weight by about lr in a batch, in all layers at once, and without normalisation the changes multiply.
_LR_TIMES_LAYERS = (0.06, 0.03)
# How far all steps together can move the weights of the freest conv layer, in relation to their size.
_WAY = (0.02, 0.2)


@dataclass(frozen=True)
class Diagnosis:
    """What a network promises before its training.

    Attributes:
        verdict: `trains`, `at risk` or `will not learn`.
        reason: Why, in a sentence.
        remedies: What to change, each a phrase; empty if it trains.
        images: How many images it is told from.
        score_spread: Standard deviation of the scores over the images, mean over the classes.
        gradient_to_weight: For each conv layer, the norm of its gradient in relation to that of its weights.
        dead_units: For each conv layer, the share of its filters that no image activates: the ReLU's output is 0
            everywhere.
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
        values = asdict(self)
        values["score_spread"] = _rounded(self.score_spread)
        values["gradient_to_weight"] = [_rounded(ratio) for ratio in self.gradient_to_weight]
        values["dead_units"] = [_rounded(share) for share in self.dead_units]
        return {**values, "remedies": list(self.remedies)}


def diagnose(
    settings: Settings, train: ImageSet, device: torch.device | str = "cpu", train_count: int | None = None
) -> Diagnosis:
    """Build the network as the trial does, and tell from its first batch whether it will learn.

    PyTorch's random state is afterwards as it was.

    Args:
        settings: Of the trial; without a seed, the network is another one than the trial's.
        train: The trial's training images; the first of them are the batch.
        device: Where to compute.
        train_count: How many training images there are, if `train` has only the first of them.

    Raises:
        ValueError: The poolings would halve the image to less than 1x1.
    """
    device = torch.device(device)
    affordable = int(_MULTIPLY_ADDS // models.cost(settings).multiply_adds)
    count = min(train.count, MOST_IMAGES, max(affordable, _FEWEST_IMAGES))
    # A manual seed also sets those of the GPUs; to ask them for their state would start them.
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=gpus):
        if settings.seed is not None:
            torch.manual_seed(settings.seed)
        model = models.build(settings)
    model = model.to(device).to(memory_format=torch.channels_last)
    pixels = torch.from_numpy(train.images[:count].copy()).to(device)  # (B, H, W, C); the trial's may be read-only
    images = pixels.permute(0, 3, 1, 2).float().div_(255)
    labels = torch.from_numpy(train.labels[:count].copy()).to(device)

    convs = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    dead_units: list[Tensor] = []
    for module in _before_relu(model):
        module.register_forward_hook(lambda _module, _inputs, output: dead_units.append(_dead(output)))
    scores = model(images)  # (B, classes)
    loss = nn.functional.cross_entropy(scores, labels, label_smoothing=settings.label_smoothing)
    gradients = torch.autograd.grad(loss, convs)

    weights = [weight.detach() for weight in convs]
    ratios = torch.stack([g.norm() / w.norm() for g, w in zip(gradients, weights, strict=True)]).tolist()
    spread = scores.detach().double().std(dim=0).mean().item()
    steps = settings.epochs * min(settings.batches, math.ceil((train_count or train.count) / settings.bs_train))
    if settings.optimizer == "sgd":
        way = steps * settings.lr / (1 - settings.momentum) * max(ratios)
    elif settings.optimizer == "muon":
        way = steps * settings.lr
    else:
        way = steps * settings.lr / torch.stack([w.square().mean().sqrt() for w in weights]).min().item()
    return Diagnosis(
        **judge(settings, spread, way)._asdict(),
        images=count,
        score_spread=spread,
        gradient_to_weight=tuple(ratios),
        dead_units=tuple(torch.stack(dead_units).tolist()),
    )


class Diagnoses(NamedTuple):
    """What `diagnose_all` found.

    Attributes:
        by_trial: The diagnosis of each trial id.
        left_out: Why trials have none, a line for each reason.
    """

    by_trial: dict[str, Diagnosis]
    left_out: list[str]


def diagnose_all(trials: Iterable[Settings], download: bool = True, within_s: float = math.inf) -> Diagnoses:
    """Diagnose trials, each one once, from the first images of their sources.

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


class Judgement(NamedTuple):
    """A verdict, its reason in a sentence, and what to change."""

    verdict: Verdict
    reason: str
    remedies: tuple[str, ...] = ()


def judge(settings: Settings, score_spread: float, way: float) -> Judgement:
    """The worst of three judgements: of the signal, of the length of a step, and of all the steps together.

    Args:
        settings: Of the trial.
        score_spread: Of its network; see `Diagnosis`.
        way: How far the training can move the weights of the freest conv layer, in relation to their size.
    """
    if not math.isfinite(score_spread):
        return Judgement("will not learn", "The scores are not finite numbers.", ("fewer layers", "ycn: true"))
    judgements = (_of_signal(settings, score_spread), _of_steps(settings), _of_way(way))
    return max(judgements, key=lambda judgement: VERDICTS.index(judgement.verdict))  # the first of equals


def _verdict(value: float, lost: float, safe: float) -> Verdict:
    return "trains" if value >= safe else "at risk" if value >= lost else "will not learn"


def _of_signal(settings: Settings, spread: float) -> Judgement:
    coupled = 0.0 if settings.optimizer in ("adamw", "muon") else settings.reg
    lost, safe = (
        max(ratio * math.sqrt(coupled), least) for ratio, least in zip(_SPREAD_TO_ROOT_REG, _LEAST_SPREAD, strict=True)
    )
    verdict = _verdict(spread, lost, safe)
    differ = f"The scores of different images differ by {spread:.1e}"
    against = f"{safe:.1e} would do" + (f" at reg {settings.reg:g}" if coupled else "")
    if verdict == "trains":
        return Judgement(verdict, f"{differ}; {against}.")
    networks: tuple[str, ...] = (
        () if settings.ycn else ("ycn: true",) if settings.init == "he" else ("init: he", "ycn: true")
    )
    if safe == _LEAST_SPREAD[1]:
        reason = f"{differ} only, where float32 begins to round; {against}."
        return Judgement(verdict, reason, (*networks, "fewer layers"))
    pull = "is stronger" if verdict == "will not learn" else "may be stronger"
    reason = f"{differ} only; {against}. The pull of the weight decay {pull} than so small a signal."
    decay: tuple[str, ...] = ()
    if spread > 2 * _LEAST_SPREAD[1]:
        decay = (f"reg: {_one_digit_below((spread / _SPREAD_TO_ROOT_REG[1]) ** 2)} or less",)
        decay += ("optimizer: adamw",) if settings.optimizer == "adam" else ()
    return Judgement(verdict, reason, (*networks, *decay, "fewer layers"))


def _of_steps(settings: Settings) -> Judgement:
    layers = len(settings.filters) + len(settings.hidden_dims) + 1
    verdict = _verdict(-settings.lr * layers, *(-limit for limit in _LR_TIMES_LAYERS))
    if verdict == "trains" or settings.ycn or settings.optimizer in ("sgd", "muon"):
        return Judgement("trains", "")
    destroy = "destroy" if verdict == "will not learn" else "may destroy"
    reason = (
        f"Adam changes each weight by about lr = {settings.lr:g} in a batch; in {layers} layers without normalisation "
        f"these changes multiply, and {destroy} the features."
    )
    return Judgement(verdict, reason, (f"lr: {_one_digit_below(_LR_TIMES_LAYERS[1] / layers)} or less", "ycn: true"))


def _of_way(way: float) -> Judgement:
    verdict = _verdict(way, *_WAY)
    if verdict == "trains":
        return Judgement(verdict, "")
    moved = f"All steps together move the weights of a conv layer by {way:.1%} of their size at most"
    return Judgement(verdict, f"{moved}; {_WAY[1]:.0%} would do.", ("a higher lr", "more epochs or batches"))


def _before_relu(model: nn.Module) -> list[nn.Module]:
    """The modules whose output goes into the ReLU of each conv layer, in the order of the conv layers."""
    kind = nn.BatchNorm2d if isinstance(model, models.YourCodeNet) else nn.Conv2d
    return [module for module in model.modules() if isinstance(module, kind)]


def _dead(before_relu: Tensor) -> Tensor:
    """The share of the channels of (B, C, H, W) that are nowhere positive."""
    return (before_relu.detach().amax(dim=(0, 2, 3)) <= 0).float().mean()


def _one_digit_below(value: float) -> str:
    """`3e-05` for 3.7e-5."""
    exponent = math.floor(math.log10(value))
    return f"{math.floor(value / 10**exponent) * 10.0**exponent:.0e}"


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
