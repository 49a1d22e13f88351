"""One named experiment in this process, and the JSON file that every experiment leaves."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tune_cnn import data
from tune_cnn.diagnosis import diagnose
from tune_cnn.errors import ConfigError, ResultError
from tune_cnn.files import replace_file
from tune_cnn.machine import cores
from tune_cnn.models import network_fault
from tune_cnn.rules import Text, check, name_problems, plain, suggest
from tune_cnn.settings import KEYS, OPTIONAL, DataSettings, Settings, parse_settings
from tune_cnn.train_results import FitResult
from tune_cnn.trial import Trial, choose_device

CONFIG_KEYS = (
    "run_name", "out_dir", "seed", "bs_train", "bs_test", "batches", "epochs", "early_stopping", "checkpoints", "lr",
    "reg", "filters_per_layer", "layers_per_block", "pool_every", "hidden_dims", "ycn", "kw",
)  # fmt: skip

_MOST_LOSS = 3.5e38  # about the largest number of PyTorch's floats


@dataclass(frozen=True)
class _Places:
    out_dir: Text
    checkpoints: Text | None


def run_experiment(
    run_name: str,
    out_dir: str = "./results",
    seed: int | None = None,
    bs_train: int = 128,
    bs_test: int | None = None,
    batches: int = 100,
    epochs: int = 100,
    early_stopping: int | None = 3,
    checkpoints: str | None = None,
    lr: float = 1e-3,
    reg: float = 1e-3,
    filters_per_layer: list[int] = [64],  # noqa: B006 - read only, and as notebooks know it
    layers_per_block: int = 2,
    pool_every: int = 2,
    hidden_dims: list[int] = [1024],  # noqa: B006
    ycn: bool = False,
    **kw: Any,
) -> None:
    """Train one network and write `<out_dir>/<run_name>.json`.

    Prints the network, a progress bar for each pass, and at the end the test accuracy in percent and the test loss in
    nats of the weights with the best validation accuracy. The settings are those of `settings.Settings`.

    Args:
        run_name: Names the result file.
        out_dir: Where it is written.
        checkpoints: Save to `<checkpoints>.pt` whenever the validation accuracy improves; continue from that file if
            it is there.
        kw: `data`: the images, such as `"image_folder:/path"`, instead of CIFAR-10; `device`: where to compute,
            such as `"cpu"`; by default the GPU if there is one; and the further settings, such as `flip=True`. `kw` of
            a result file's config may be given as it is there: `run_experiment(**config)` repeats the run.

    Raises:
        ConfigError: A name or a setting is not valid, or a folder cannot be made; every fault is listed.
        DataError: The images cannot be found or downloaded.

    Example:
        >>> run_experiment("exp1_1_K32_L2", seed=42, bs_train=50, batches=10000, epochs=30, early_stopping=5, reg=2e-3,
        ...                filters_per_layer=[32], layers_per_block=2, pool_every=4, hidden_dims=[100, 100])
    """
    arguments = plain(dict(locals()))
    place = f"run_experiment({run_name!r})"
    further = arguments.pop("kw")
    if isinstance(further.get("kw"), Mapping):
        further = {**further.pop("kw"), **further}
    known = [*arguments, "data", "device", *OPTIONAL]
    problems = [f"run_name: {problem}" for problem in name_problems(run_name)]
    problems += [f"{key}: unknown argument; {suggest(key, known)}" for key in further if key not in known]
    arguments |= further
    places, found = check(_Places, {key: arguments[key] for key in ("out_dir", "checkpoints")})
    problems += found
    settings = Settings()
    try:
        settings = parse_settings({key: arguments[key] for key in (*KEYS, "data") if key in arguments}, place)
    except ConfigError as error:
        problems += error.problems
    try:
        device = choose_device(arguments.get("device"))
    except ConfigError as error:
        problems += error.problems
    if fault := network_fault(settings):
        problems.append(fault)
    if problems or places is None:
        raise ConfigError(place, problems)
    # A folder that cannot be made should not be found out after hours of training.
    problems += _folder_problems("out_dir", Path(places.out_dir))
    problems += _folder_problems("checkpoints", Path(places.checkpoints or ".").parent)
    if problems:
        raise ConfigError(place, problems)

    trial = train(settings, checkpoints=places.checkpoints, device=device)
    path = Path(places.out_dir) / f"{run_name}.json"
    config = experiment_config(run_name, places.out_dir, trial.settings, places.checkpoints)
    save_experiment(path, config, trial.history, trial.summary())
    print(f"*** Output file {path} written")


def train(
    settings: Settings,
    *,
    checkpoints: str | None = None,
    device: torch.device | str | None = None,
    threads: int | None = None,
) -> Trial:
    """Train one network in this process and show its progress.

    Args:
        settings: What decides the numbers.
        checkpoints: As in `run_experiment`.
        device: Where to compute; None: the GPU if there is one.
        threads: How many compute on cores; None: as many as PyTorch has, but no more than there are cores.

    Raises:
        ConfigError: There is no such device.
        DataError: The images cannot be found or downloaded.
        ResultError: The checkpoint file is damaged, or belongs to another trial.
        ValueError: The network cannot be built.
    """
    device = choose_device(device)
    # PyTorch sees the affinity of its process, but not the CPU quota of its container.
    torch.set_num_threads(threads or min(torch.get_num_threads(), cores()))
    settings = replace(settings, data=data.resolve(settings.data))
    trial = Trial(settings, data.load(settings.data, progress=True), device)
    trial.further_facts["diagnosis"] = diagnose(settings, trial.images.train, trial.device).to_json()
    print(trial.trainer.model)
    trial.run(checkpoint=Path(f"{checkpoints}.pt") if checkpoints else None)
    result = trial.test_result
    assert result is not None
    print(f"Test Accuracy: {result.accuracy}")
    print(f"Test Loss: {sum(result.losses) / len(result.losses)}")
    return trial


def _folder_problems(key: str, folder: Path) -> list[str]:
    """Make a folder; return why it cannot be made, or nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return [f"{key}: {str(folder)!r} cannot be used ({error.strerror}); name another folder"]
    return []


def experiment_config(
    run_name: str, out_dir: str | Path, settings: Settings, checkpoints: str | None = None
) -> dict[str, Any]:
    """The `config` of a result file: the arguments with which `run_experiment` would repeat it."""
    values = {"run_name": run_name, "out_dir": str(out_dir), "checkpoints": checkpoints, **settings.to_json()}
    default = DataSettings().to_json()
    source = {
        key: value
        for key, value in values.pop("data").items()
        if key not in ("classes", "fingerprint") and (key == "source" or value != default[key])
    }
    values["kw"] = {key: values[key] for key in OPTIONAL if values[key] != getattr(Settings, key)}
    if source != {"source": "cifar10"}:
        values["kw"]["data"] = source
    return {key: values[key] for key in CONFIG_KEYS}


def save_experiment(path: Path, config: Mapping[str, Any], results: FitResult, trial: Mapping[str, Any]) -> None:
    """Write a result file: strict JSON, in which a number that is not finite is null.

    Args:
        path: Its folder is made if need be.
        config: What `experiment_config` gives.
        results: The history.
        trial: What `Trial.summary` gives.
    """
    content = {"config": config, "results": results._asdict(), "trial": trial}
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, to_strict_json(content).encode())


def load_experiment(path: str | Path) -> tuple[dict[str, Any], FitResult]:
    """Read a result file.

    Returns:
        The config, and the history, in which null is NaN again.

    Raises:
        ResultError: There is no such file, it is damaged, or it is not a result file.
    """
    config, results, _ = load_result_file(path)
    return config, results


def load_result_file(path: str | Path) -> tuple[dict[str, Any], FitResult, dict[str, Any]]:
    """Read a result file: config, history, and the facts about the trial ({} where the file has none).

    Raises:
        ResultError: There is no such file, it is damaged, or it is not a result file.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ResultError(
            f"{path}: cannot be read ({error.strerror}); run its experiment, or check the name"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path}: damaged ({error}); export or run its experiment again") from error
    return parse_result(content, str(path))


def parse_result(content: object, place: str) -> tuple[dict[str, Any], FitResult, dict[str, Any]]:
    """Check the content of a result file; see `load_result_file`."""
    wrong = f"{place}: not a result file of an experiment; remove it from the folder, or name another file"
    if not isinstance(content, dict):
        raise ResultError(f"{wrong} (no JSON object)")
    config, results, trial = content.get("config"), content.get("results"), content.get("trial", {})
    if not (isinstance(config, dict) and isinstance(results, dict) and isinstance(trial, dict)):
        raise ResultError(f"{wrong} (no config or no results)")
    if set(results) != set(FitResult._fields):
        raise ResultError(f"{wrong} (results must have {', '.join(FitResult._fields)})")
    num_epochs = results["num_epochs"]
    fit_together = isinstance(num_epochs, int) and not isinstance(num_epochs, bool)
    curves = {}
    for name in FitResult._fields[1:]:
        is_accuracy = name.endswith("acc")
        curve = _curve(results[name], *((0.0, 100.0) if is_accuracy else (-_MOST_LOSS, _MOST_LOSS)))
        curves[name] = curve or []
        fit_together &= curve is not None and (not is_accuracy or len(curve) == num_epochs)
    if not fit_together:
        raise ResultError(f"{wrong} (num_epochs and the curves do not fit together)")
    return config, FitResult(num_epochs, **curves), trial


def to_strict_json(content: object) -> str:
    """Indented JSON in which a number that is not finite is null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _curve(values: object, low: float, high: float) -> list[float] | None:
    """Numbers in a range, infinite ones, and null as NaN; None if there is anything else."""
    if not isinstance(values, list):
        return None
    curve = []
    for value in (math.nan if value is None else value for value in values):
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        if (value < low or value > high) and abs(value) != math.inf:
            return None
        curve.append(float(value))
    return curve
