"""Verdicts on an untrained network: whether it will learn, why not, and what to change."""

import math
from typing import Literal, NamedTuple

from tune_cnn.settings import Settings

Verdict = Literal["trains", "at risk", "will not learn"]
EXPECTATIONS: tuple[Verdict, ...] = ("trains", "at risk", "will not learn")

# The limits are calibrated on some 400 short trainings over K, L, P, hidden_dims, init, reg, lr and optimizer, on real
# images and on drawn shapes: those for Adam's decay are right for about 96 of 100. Near a limit, either may happen.
# The limits for SGD and without decay rest on few trainings, the one for the size of a step on some twenty.
#
# Weight decay that is part of the gradient shrinks every weight towards 0, and the signal with the weights. At first,
# using the signal lowers the loss in proportion to the variance of the logits, while keeping the weights costs a
# penalty in proportion to reg. With Adam, whose steps are about lr long however small the gradient, time is short: the
# weights are gone after some |w| / lr batches. So the logit spread is compared with the square root of reg; with Adam,
# of reg * lr. (The exponents that fitted best were 0.6 for reg and 0.5 for lr.)
_SPREAD_TO_ROOT = {"adam": (0.12, 0.14), "sgd": (5e-3, 1.1e-2)}
# Without such decay, Adam takes full steps however small the gradient, and only float32's rounding sets a limit: logits
# near 0.1 that differ by less than the first value differ in their last bit or two.
_LEAST_SPREAD = (1e-8, 1e-7)
_MARGIN = 0.25  # advised reg, as a fraction of the largest that would do
# Even without weight decay, a small signal takes long to grow: at lr = 1e-3, Adam needed some 200 batches to leave the
# loss of guessing from a logit spread of 1e-5, some 700 from 1e-6, and with some seeds several times as many. These are
# compared with the number of batches before early stopping may end the training.
_SMALL_SPREAD = 1e-4
_BATCHES_AT_1E_5 = 200
_BATCHES_TO_NEEDED = (0.3, 3.0)
# Adam changes each weight by about lr per batch, in all layers at once; without normalisation the changes multiply.
_LR_TIMES_LAYERS = (0.045, 0.035)
# Largest relative change that the weights of any conv layer can accumulate over the training.
_RELATIVE_CHANGE = (0.02, 0.2)


class Judgement(NamedTuple):
    """Verdict, its reason in one sentence, and what to change."""

    verdict: Verdict = "trains"
    reason: str = ""
    remedies: tuple[str, ...] = ()


def judge(settings: Settings, score_spread: float, relative_change: float, batches: float = math.inf) -> Judgement:
    """Return the worst of four verdicts: on the signal, its time to grow, a single step, and all steps together.

    Args:
        score_spread: Logit spread of the untrained network; see `Diagnosis`.
        relative_change: Largest relative change that the weights of any conv layer can accumulate over the training.
        batches: Training batches before early stopping may end the training.
    """
    if not math.isfinite(score_spread):
        remedies = ("fewer layers", *_other_networks(settings)[-1:])
        return Judgement("will not learn", "The scores are not finite numbers.", remedies)
    judgements = (
        _of_signal(settings, score_spread),
        _of_time(settings, score_spread, batches),
        _of_steps(settings),
        _of_change(relative_change),
    )
    return max(judgements, key=lambda judgement: EXPECTATIONS.index(judgement.verdict))  # the first of equally bad ones


def _verdict(value: float, lost: float, safe: float) -> Verdict:
    return "trains" if value >= safe else "at risk" if value >= lost else "will not learn"


def _of_signal(settings: Settings, spread: float) -> Judgement:
    if settings.reg > 0 and settings.optimizer in _SPREAD_TO_ROOT:
        limits = _SPREAD_TO_ROOT[settings.optimizer]
        decay, at = settings.reg, f" at reg {settings.reg:g}"
        if settings.optimizer == "adam":
            decay, at = settings.reg * settings.lr, f"{at} and lr {settings.lr:g}"
    else:  # no weight decay, or one that is not part of the gradient
        limits, decay, at = (0.0, 0.0), 0.0, ""
    lost, safe = (max(limit * math.sqrt(decay), least) for limit, least in zip(limits, _LEAST_SPREAD, strict=True))
    verdict = _verdict(spread, lost, safe)
    differ = f"The scores of different images differ by {spread:.1e}"
    against = f"{safe:.1e} would do{at}"
    if verdict == "trains":
        return Judgement(verdict, f"{differ}; {against}.")
    networks = _other_networks(settings)
    if safe == _LEAST_SPREAD[1]:
        reason = f"{differ} only, where float32 begins to round; {against}."
        return Judgement(verdict, reason, (*networks, "fewer layers"))
    outweighs = "outweighs" if verdict == "will not learn" else "may outweigh"
    reason = f"{differ} only; {against}. Weight decay {outweighs} so small a signal."
    less_decay: tuple[str, ...] = ()
    if spread > 2 * _LEAST_SPREAD[1]:
        less_decay = (f"reg: {_one_digit_below(_MARGIN * settings.reg * (spread / safe) ** 2)} or less",)
        less_decay += ("optimizer: adamw",) if settings.optimizer == "adam" else ()
    return Judgement(verdict, reason, (*networks, *less_decay, "fewer layers"))


def _is_other(settings: Settings) -> bool:
    """Whether the network is not ConvClassifier, for which the limits on small signals and on steps hold."""
    return settings.ycn or settings.model is not None


def _other_networks(settings: Settings) -> tuple[str, ...]:
    """Settings that keep the signal which this network loses."""
    return () if _is_other(settings) else ("ycn: true",) if settings.init == "he" else ("init: he", "ycn: true")


def _of_time(settings: Settings, spread: float, batches: float) -> Judgement:
    if not 0 < spread < _SMALL_SPREAD or _is_other(settings) or settings.optimizer not in ("adam", "adamw"):
        return Judgement()
    needed = _BATCHES_AT_1E_5 * math.sqrt(1e-5 / spread) * 1e-3 / settings.lr
    verdict = _verdict(batches / needed, *_BATCHES_TO_NEEDED)
    if verdict == "trains":
        return Judgement()
    reason = (
        f"The scores of different images differ by {spread:.1e} only, which takes some {needed:.0f} batches to grow; "
        f"the training may end after {batches:.0f}."
    )
    longer = "more epochs or batches" if settings.early_stopping is None else "early_stopping: null"
    return Judgement(verdict, reason, (*_other_networks(settings), longer, "fewer layers"))


def _of_steps(settings: Settings) -> Judgement:
    layers = len(settings.filters) + len(settings.hidden_dims) + 1
    verdict = _verdict(-settings.lr * layers, *(-limit for limit in _LR_TIMES_LAYERS))
    if verdict == "trains" or _is_other(settings) or settings.optimizer in ("sgd", "muon"):
        return Judgement()
    destroy = "destroy" if verdict == "will not learn" else "may destroy"
    reason = (
        f"Adam changes each weight by about lr = {settings.lr:g} in a batch; in {layers} layers without normalisation "
        f"these changes multiply, and {destroy} the features."
    )
    return Judgement(verdict, reason, (f"lr: {_one_digit_below(_LR_TIMES_LAYERS[1] / layers)} or less", "ycn: true"))


def _of_change(relative_change: float) -> Judgement:
    verdict = _verdict(relative_change, *_RELATIVE_CHANGE)
    if verdict == "trains":
        return Judgement()
    change = f"The whole training can change the weights of a conv layer by {relative_change:.1%} of their norm at most"
    reason = f"{change}; {_RELATIVE_CHANGE[1]:.0%} would do."
    return Judgement(verdict, reason, ("a higher lr", "more epochs or batches"))


def _one_digit_below(value: float) -> str:
    """Round down to one digit: `3e-05` for 3.7e-5."""
    exponent = math.floor(math.log10(value))
    return f"{math.floor(value / 10**exponent) * 10.0**exponent:.0e}"
