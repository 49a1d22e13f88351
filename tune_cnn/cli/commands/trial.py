"""`tune-cnn trial`: train one experiment in this process; of a finished sweep: repeat and compare it."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from tune_cnn.cli.commands.common import check_writable
from tune_cnn.errors import ConfigError, StorageError
from tune_cnn.experiments import experiment_config, train
from tune_cnn.result_files import save_experiment
from tune_cnn.settings import Settings
from tune_cnn.sweep.search_space import load_experiments
from tune_cnn.sweep.storage import SweepFolder
from tune_cnn.texts import tell

_MOST_THREADS = 1024  # that a record may ask for


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
    trained = train(settings, device=options.device, threads=options.threads)
    path = options.out / f"{options.name}.json"
    config = experiment_config(options.name, options.out, trained.settings)
    save_experiment(path, config, trained.history, trained.summary())
    tell(f"*** Output file {path} written")
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
    threads = summary.get("threads")
    threads = threads if isinstance(threads, int) and 0 < threads <= _MOST_THREADS else None
    trained = train(settings, device=options.device, threads=options.threads or threads)
    difference = expected.first_difference(trained.history)
    if difference is None:
        tell(f"identical: all {expected.num_epochs} epochs are those of {folder}, bit for bit")
        return 0
    here = trained.summary()
    changed = {
        key: f"{key}: {summary[key]} in the sweep, {here[key]} here"
        for key in ("device", "cpu", "threads", "versions")
        if key in summary and summary[key] != here[key]
    }
    tell(f"different: the first difference is {difference}")
    tell("\n".join(changed.values()) or "device, CPU, threads and versions are the same")
    if {"device", "cpu"} & changed.keys():
        tell("that is why: another kind of machine rounds sums differently, which training amplifies")
    return 1


def _one(experiments: Mapping[str, Settings], options: argparse.Namespace) -> Settings:
    if options.name not in experiments:
        raise ConfigError(options.source, [f"{options.name}: no such experiment; there are {', '.join(experiments)}"])
    return experiments[options.name]
