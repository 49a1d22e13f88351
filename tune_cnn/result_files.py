"""Result files, one JSON per experiment: written strictly, read also as other solutions of the assignment write it."""

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tune_cnn.errors import ConfigError, ResultError
from tune_cnn.files import parse_json, read_file, replace_file
from tune_cnn.texts import counted, natural, tell
from tune_cnn.train_results import FitResult

T = TypeVar("T")

_CURVES = FitResult._fields[1:]
_MOST_CHARACTERS = 5_000_000  # in a curve given as a text
_MOST = 3.4e38  # about the largest float32; values beyond it count as infinite

_remarks: set[tuple[Path, str]] = set()  # already printed


def save_experiment(path: Path, config: Mapping[str, Any], results: FitResult, trial: Mapping[str, Any]) -> None:
    """Write a result file, from `experiments.experiment_config` and `Trial.summary`; see `to_strict_json`."""
    content = {"config": config, "results": results._asdict(), "trial": trial}
    replace_file(path, to_strict_json(content).encode())


def load_experiment(path: str | Path) -> tuple[dict[str, Any], FitResult]:
    """Read a result file, ours or that of another program; see `load_result_file`.

    Returns:
        The config ({} if the file has none), and the history.

    Raises:
        ResultError: There is no such file, it is damaged, or it holds no curves of numbers.
    """
    return load_result_file(path)[:2]


def load_result_file(path: str | Path) -> tuple[dict[str, Any], FitResult, dict[str, Any]]:
    """Read a result file: config, history, and the facts about the trial ({} if the file has none).

    In the history, null is NaN, accuracies are in percent, and the number of epochs is that of the accuracies. If
    anything has to be cut, filled in or scaled for this, stderr says so, once per file.

    Raises:
        ResultError: There is no such file, it is damaged, or it holds no curves of numbers.
    """
    try:
        content = parse_json(read_file(Path(path)))
    except OSError as error:
        raise ResultError(
            f"{path}: cannot be read ({error.strerror}); run its experiment, or check the name"
        ) from error
    except ValueError as error:
        raise ResultError(f"{path}: damaged ({error}); export or run its experiment again") from error
    return parse_result(content, str(path))


def readable(paths: Iterable[Path], read: Callable[[Path], T]) -> Iterator[tuple[Path, T]]:
    """Read files in natural order of their names; those that cannot be read are named on stderr and skipped."""
    for path in sorted(paths, key=lambda path: natural(path.stem)):
        try:
            yield path, read(path)
        except (ResultError, ConfigError) as error:
            tell(f"Left out: {error}", file=sys.stderr)


def parse_result(content: object, place: str) -> tuple[dict[str, Any], FitResult, dict[str, Any]]:
    """Read the content of a result file; see `load_result_file`."""
    parts = content if isinstance(content, dict) else {"results": content}
    config, trial = (part if isinstance(part := parts.get(key), dict) else {} for key in ("config", "trial"))
    results = parts.get("results", parts)
    if isinstance(results, list) and len(results) == len(FitResult._fields):
        results = dict(zip(FitResult._fields, results, strict=True))  # a named tuple written as a list
    if not isinstance(results, dict) or results.keys().isdisjoint(_CURVES):
        raise ResultError(f"{place}: not a result file: it has no results with {', '.join(_CURVES)}; name another file")
    curves = {}
    for name in _CURVES:
        try:
            curves[name] = _curve(results.get(name))
        except ValueError as error:
            raise ResultError(f"{place}: results.{name} is not a curve of numbers ({error}); correct it") from error
    history, remarks = _history(curves, results.get("num_epochs"))
    if not trial and (names := _fractions(history)):  # our own files have percent
        percent: dict[str, Any] = {name: [100 * value for value in getattr(history, name)] for name in names}
        history = history._replace(**percent)
        remarks.append(f"no value of {' and '.join(names)} exceeds 1; taken for fractions")
    for remark in remarks:
        if (known := (Path(place).absolute(), remark)) not in _remarks:
            tell(f"{place}: {remark}", file=sys.stderr)
            _remarks.add(known)
    return config, history, trial


def to_strict_json(content: object) -> str:
    """Format content as indented JSON; numbers that are not finite become null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _curve(value: object) -> list[float]:
    """Read the numbers of a curve in order, also from lists of lists or texts; null is NaN.

    Raises:
        ValueError: It is not a curve; the message quotes its first characters.
    """
    if value is None:
        return []
    if isinstance(value, str):
        if len(value) > _MOST_CHARACTERS:
            raise ValueError(f"a text of {len(value):,} characters")
        value = _words(value)
    if isinstance(value, dict) and all(key.isdecimal() for key in value):  # as pandas writes a series
        value = list(value.values())
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.40} is not a list")
    return [_number(item) for part in value for item in (part if isinstance(part, list) else [part])]


def _number(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str) and len(words := _words(value[:200])) == 1:
        value = float(words[0])
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r:.40} is not a number")
    return math.inf if value > _MOST else -math.inf if value < -_MOST else float(value)


def _words(text: str) -> list[str]:
    """The numbers in a text, such as str() of tensors: `[tensor(2.3026, device='cuda:0'), ...]`, `54.3 %`."""
    without_names = re.sub(r"\b\w+=[^,)\]]*", " ", text)
    return re.sub(r"(?<![\w.])[\w.]+\(|[\[\](),%]", " ", without_names).split()


def _history(curves: dict[str, list[float]], stated: object) -> tuple[FitResult, list[str]]:
    """Make a consistent history; return it, and remarks on what had to be changed.

    Accuracies are cut to the shorter curve, and losses in proportion; missing accuracies become NaN. The number of
    epochs that is `stated` in the file only counts if there are no accuracies.
    """
    counts = {name: len(curves[name]) for name in ("train_acc", "test_acc")}
    losses = [len(curves[name]) for name in ("train_loss", "test_loss") if curves[name]]
    if longest := max(counts.values()):
        epochs = min(filter(None, counts.values()))
    elif isinstance(stated, int) and 0 < stated <= min(losses, default=0):
        longest = epochs = int(stated)
    else:
        longest = epochs = math.gcd(*losses)
    if not epochs:
        return FitResult.empty(), []
    for name, curve in curves.items():
        if name.endswith("acc"):
            curves[name] = curve[:epochs] or [math.nan] * epochs
        elif len(curve) % longest == 0 or len(curve) % epochs:  # else the losses already belong to the shorter curve
            curves[name] = curve[: round(len(curve) * epochs / longest)]
    lengths = " and ".join(f"{name} has {count}" for name, count in counts.items())
    remark = f"{lengths} values; taken for {counted(epochs, 'epoch')}"
    return FitResult(epochs, **curves), [] if set(counts.values()) == {epochs} else [remark]


def _fractions(history: FitResult) -> list[str]:
    """The names of accuracy curves in fractions of 1: those that never exceed 1, unless guessing explains that.

    Guessing among C classes gives an accuracy of 100 / C % and a loss of ln C nats: 1 % and 4.6 for 100 classes.
    """
    names = []
    known = {name: [v for v in getattr(history, name) if not math.isnan(v)] for name in ("train_acc", "test_acc")}
    if any(1 < max(curve, default=0) < 10 for curve in known.values()):  # these are percent: a little more than 1 %
        return []
    is_0_or_1 = {value for curve in known.values() for value in curve} <= {0, 1}  # perhaps 1 % in every epoch
    for name, curve in known.items():
        highest = max(curve, default=0)
        lowest = min(filter(math.isfinite, getattr(history, name.replace("acc", "loss"))), default=math.inf)
        is_guessing = 4 < lowest < 12 and highest >= 10 * math.exp(-lowest)
        if 0 < highest <= 1 and not is_guessing and not (is_0_or_1 and lowest >= 1):
            names.append(name)
    return names
