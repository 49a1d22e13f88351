"""`tune-cnn trial`: train one experiment in this process; of a finished sweep: repeat and compare it."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch

from tune_cnn.cli.commands.common import check_writable
from tune_cnn.errors import ConfigError, StorageError
from tune_cnn.experiments import experiment_config, save_experiment, train
from tune_cnn.settings import Settings
from tune_cnn.sweep.search_space import load_experiments
from tune_cnn.sweep.storage import SweepFolder


def run(options: argparse.Namespace) -> int:
    """Train one experiment of a config file, or repeat one of a sweep."""
    source = Path(options.source)
    if source.suffix in (".yaml", ".yml") or source.is_file():
        return _of_file(options)
    return _of_sweep(options)


def _of_file(options: argparse.Namespace) -> int:
    experiments = load_experiments([Path(options.source)], overrides=options.overrides, data=options.data)
    settings = _one({e.name: e.settings for e in experiments}, options)
    check_writable(options.out)
    if options.threads:
        torch.set_num_threads(options.threads)
    trained = train(settings, device=options.device)
    path = options.out / f"{options.name}.json"
    config = experiment_config(options.name, options.out, trained.settings)
    save_experiment(path, config, trained.history, trained.summary())
    print(f"*** Output file {path} written")
    return 0


def _of_sweep(options: argparse.Namespace) -> int:
    if options.overrides or options.data:
        raise ConfigError(
            f"tune-cnn trial {options.source}",
            ["--set and --data change a trial, but one of a sweep is repeated as it was; name the config file instead"],
        )
    folder = SweepFolder.find(options.source, options.storage)
    settings = _one(folder.experiments(), options)
    record = folder.trial(settings).record()
    if record is None:
        raise StorageError(f"{options.name}: not finished in {folder}, so there is nothing to compare; run the sweep")
    expected, summary = record
    threads = options.threads or summary.get("threads")
    if isinstance(threads, int) and threads > 0:
        torch.set_num_threads(threads)
    trained = train(settings, device=options.device)
    difference = expected.first_difference(trained.history)
    if difference is None:
        print(f"identical: all {expected.num_epochs} epochs are those of {folder}, bit for bit")
        return 0
    here = trained.summary()
    changed = [
        f"{key}: {summary.get(key)} in the sweep, {here[key]} here"
        for key in ("device", "threads", "versions")
        if summary.get(key) != here[key]
    ]
    print(f"different: the first difference is {difference}")
    print("\n".join(changed) or "device, threads and versions are the same")
    return 1


def _one(experiments: Mapping[str, Settings], options: argparse.Namespace) -> Settings:
    if options.name not in experiments:
        raise ConfigError(options.source, [f"{options.name}: no such experiment; there are {', '.join(experiments)}"])
    return experiments[options.name]
