"""Run one named experiment in this process, and write its JSON result file."""

import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
from pydantic import AfterValidator

from tune_cnn import data
from tune_cnn.diagnosis import diagnose
from tune_cnn.errors import ConfigError, NetworkError, StorageError
from tune_cnn.files import check_writable
from tune_cnn.machine import cores, slow_here, slow_remark
from tune_cnn.models import network_fault, resolve
from tune_cnn.result_files import load_experiment, save_experiment
from tune_cnn.rules import Text, check, name_problems, plain, suggest
from tune_cnn.settings import KEYS, OPTIONAL, Settings, parse_settings
from tune_cnn.settings.data import FOUND_OUT, DataSettings
from tune_cnn.texts import named, tell
from tune_cnn.training.devices import choose_device
from tune_cnn.trial import Trial
from tune_cnn.waiting import waiting

__all__ = ["experiment_config", "load_experiment", "run_experiment", "train", "train_and_save"]


_Place = Annotated[Text, AfterValidator(os.path.expanduser)]


@dataclass(frozen=True)
class _Places:
    out_dir: _Place
    checkpoints: _Place | None


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
    filters_per_layer: list[int] = [64],  # noqa: B006 - never changed; the signature that notebooks use
    layers_per_block: int = 2,
    pool_every: int = 2,
    hidden_dims: list[int] = [1024],  # noqa: B006
    ycn: bool = False,
    **kw: Any,
) -> None:
    """Train one network and write `<out_dir>/<run_name>.json`.

    Prints the network, a progress bar for each pass, and at the end, for the weights with the best validation accuracy,
    the test accuracy in percent and the test loss in nats. The settings are explained in `settings.Settings`.

    Args:
        run_name: Name of the result file, without `.json`.
        out_dir: Folder of the result file.
        checkpoints: Save to `<checkpoints>.pt` whenever the validation accuracy improves; continue from that file if
            it is there.
        kw: `data`: images to use instead of CIFAR-10, such as `"image_folder:/path"`; `device`: where to compute, such
            as `"cpu"`, by default the GPU if there is one; and any other setting, such as `flip=True`. The `kw` of a
            result file's config may be passed as it is: `run_experiment(**config)` repeats the run.

    Raises:
        ConfigError: A name or setting is invalid, or a folder cannot be created; every fault is listed.
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
        settings = resolve(parse_settings({key: arguments[key] for key in (*KEYS, "data") if key in arguments}, place))
    except ConfigError as error:
        problems += error.problems
    except NetworkError as error:
        problems.append(f"model: {error}")
    try:
        device = choose_device(arguments.get("device"))
    except ConfigError as error:
        problems += error.problems
    if fault := network_fault(settings):
        problems.append(fault)
    if problems or places is None:
        raise ConfigError(place, problems)
    folders = {"out_dir": Path(places.out_dir)}
    if places.checkpoints is not None:
        folders["checkpoints"] = Path(places.checkpoints).parent
    for key, folder in folders.items():
        try:
            check_writable(folder)
        except StorageError as error:
            problems.append(f"{key}: {error}")
    if problems:
        raise ConfigError(place, problems)
    train_and_save(run_name, places.out_dir, settings, checkpoints=places.checkpoints, device=device)


def train_and_save(
    run_name: str, out_dir: str | Path, settings: Settings, *, checkpoints: str | None = None, **options: Any
) -> None:
    """Train one network as `train` does, with its options, and write `<out_dir>/<run_name>.json`."""
    trial = train(settings, checkpoints=checkpoints, **options)
    path = Path(out_dir) / f"{run_name}.json"
    config = experiment_config(run_name, out_dir, trial.settings, checkpoints)
    save_experiment(path, config, trial.history, trial.summary())
    tell(f"*** Output file {path} written")


def train(
    settings: Settings,
    *,
    checkpoints: str | None = None,
    device: torch.device | str | None = None,
    threads: int | None = None,
    epochs: int | None = None,
) -> Trial:
    """Train one network in this process and show its progress.

    Args:
        checkpoints: As in `run_experiment`.
        device: None: the GPU if there is one.
        threads: None: PyTorch's default, but no more than `machine.cores`.
        epochs: As in `Trial.run`.

    Raises:
        ConfigError: There is no such device.
        DataError: The images cannot be found or downloaded.
        ResultError: The checkpoint file is damaged, or belongs to another trial.
        ValueError: The network cannot be built.
    """
    device = choose_device(device)
    # PyTorch respects the affinity of its process, but not the CPU quota of its container.
    torch.set_num_threads(threads or min(torch.get_num_threads(), cores()))
    if device.type == "cpu" and slow_here(settings.precision):
        tell(slow_remark(settings.precision), file=sys.stderr)
    planned = settings.data  # its fingerprint, if any, lets `load` refuse a folder that has changed
    settings = replace(settings, data=data.resolve(planned))
    tell(data.describe(settings.data), file=sys.stderr)
    with waiting("loading images"):
        images = data.load(planned, progress=True)
    with waiting("diagnosing the network"):
        trial = Trial(settings, images, device)
        try:
            trial.further_facts["diagnosis"] = diagnose(settings, images.train, trial.device).to_json()
        except Exception as error:  # from a custom network's code, which may still train
            tell(f"diagnosis: {named(error)}", file=sys.stderr)
    print(trial.trainer.model)
    trial.run(Path(f"{checkpoints}.pt") if checkpoints else None, epochs)
    result = trial.test_result
    assert result is not None
    print(f"Test Accuracy: {result.accuracy:.2f}")
    print(f"Test Loss: {fmean(result.losses):.3f}")
    return trial


def experiment_config(
    run_name: str, out_dir: str | Path, settings: Settings, checkpoints: str | None = None
) -> dict[str, Any]:
    """Build the `config` of a result file: the arguments with which `run_experiment` repeats the run."""
    values = {"run_name": run_name, "out_dir": str(out_dir), "checkpoints": checkpoints, **settings.to_json()}
    images, default = values.pop("data"), DataSettings().to_json()
    changed = {key: value for key, value in images.items() if key not in FOUND_OUT and value != default[key]}
    values["kw"] = {key: values[key] for key in OPTIONAL if values[key] != getattr(Settings, key)}
    if changed:
        values["kw"]["data"] = {"source": images["source"], **changed}
    return {key: values[key] for key in inspect.signature(run_experiment).parameters}
