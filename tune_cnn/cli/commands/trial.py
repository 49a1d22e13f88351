"""Train one experiment in this process; one of a finished sweep is repeated and compared."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from tune_cnn.cli.options import add_out, add_settings, add_storage, open_sweep, positive
from tune_cnn.errors import ConfigError, StorageError
from tune_cnn.files import check_writable
from tune_cnn.sweep.config.shipped import config_path
from tune_cnn.texts import tell
from tune_cnn.waiting import waiting

EXAMPLE = "tune-cnn trial exp1_1.yaml exp1_1_K32_L2\n  tune-cnn trial ray_results/exp1_1 exp1_1_K32_L2"
_MOST_THREADS = 1024  # limit for the number in a record


def add_arguments(parser: ArgumentParser) -> None:
    sources = "a config file, or a sweep's folder or name; a sweep comes before a shipped file of its name"
    parser.add_argument("source", metavar="FILE|SWEEP", help=sources)
    parser.add_argument("name", metavar="EXPERIMENT", help="its name; for a sweep, also the name in its tables")
    add_settings(parser)
    add_out(parser, "result folder for a config file's experiment")
    add_storage(parser)
    parser.add_argument("--threads", type=positive, metavar="N", help="cores to use (default: all, or as in the sweep)")
    parser.add_argument("--device", metavar="NAME", help="where to compute, as cpu or cuda:1 (default: a GPU if any)")


def run(options: Namespace) -> int:
    path = config_path(options.source)
    is_of_file = path.suffix in (".yaml", ".yml") or path.is_file()
    if is_of_file and path != Path(options.source):  # a shipped file, whose sweep has its name
        with waiting("loading PyTorch"):
            from tune_cnn.sweep.sweep_folder import SweepFolder

        is_of_file = SweepFolder.find_any(options.source, options.storage) is None
    return _of_file(path, options) if is_of_file else _of_sweep(options)


def _of_file(path: Path, options: Namespace) -> int:
    from tune_cnn.sweep.config.load import load_experiments
    from tune_cnn.sweep.config.run_names import settings_of

    experiments = load_experiments([path], overrides=options.overrides, data=options.data)
    from tune_cnn.experiments import train_and_save
    from tune_cnn.sweep.remarks import replaced

    settings = settings_of(options.name, {e.name: e.settings for e in experiments}, str(path))
    check_writable(options.out)
    for remark in replaced({options.name: settings.trial_id}, options.out):
        tell(remark, file=sys.stderr)
    train_and_save(options.name, options.out, settings, device=options.device, threads=options.threads)
    return 0


def _of_sweep(options: Namespace) -> int:
    if options.overrides or options.data:
        fault = "--set and --data change a trial, but one of a sweep is repeated as it was"
        remedy = "name the config file instead, or from Python: run_experiment(**config), of its result file"
        raise ConfigError(f"tune-cnn trial {options.source}", [f"{fault}; {remedy}"])
    folder = open_sweep(options.source, options)
    from tune_cnn.experiments import train
    from tune_cnn.machine import changed_machine, machine_facts
    from tune_cnn.sweep.config.run_names import settings_of

    experiments = folder.experiments()
    labels = {folder.trial(settings).label: settings for settings in experiments.values()}
    settings = labels.get(options.name) or settings_of(options.name, experiments, options.source)
    record = folder.trial(settings).record()
    if record is None:
        raise StorageError(f"{options.name}: not finished in {folder}, so there is nothing to compare; run the sweep")
    expected, summary = record
    threads = summary.get("threads")
    threads = threads if isinstance(threads, int) and 0 < threads <= _MOST_THREADS else None
    epochs = expected.num_epochs if summary.get("stop_reason") == "scheduler" else None
    trained = train(settings, device=options.device, threads=options.threads or threads, epochs=epochs)
    difference = expected.first_difference(trained.history)
    if difference is None:
        tell(f"identical: all {expected.num_epochs} epochs are those of {folder}, bit for bit")
        return 0
    changed = changed_machine(summary, machine_facts(trained.device), "in the sweep")
    tell(f"different: the first difference is {difference}")
    tell("\n".join(changed.values()) or "device, CPU, threads and versions are the same")
    if settings.seed is None:
        tell("that is why: its settings have no seed, so each training draws weights and orders of its own")
    elif {"device", "cpu"} & changed.keys():
        tell("that is why: another kind of machine rounds sums differently, which training amplifies")
    elif settings.model is not None:
        tell("its network may draw numbers without PyTorch, which the seed does not reach; draw them with torch.rand")
    return 1
