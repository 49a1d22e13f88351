"""The commands. Each imports what it needs when it runs, so that help answers at once."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cnn import __version__
from tune_cnn.errors import ConfigError, StorageError, TuneCnnError

if TYPE_CHECKING:
    from tune_cnn.settings import Settings
    from tune_cnn.sweep.storage import SweepFolder

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 success, 1 some trials failed, 2 the user's mistake, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(arguments)
    try:
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except TuneCnnError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        again = [argument for argument in arguments if argument != "--fresh"]  # that would start over once more
        print(f"\ninterrupted; continue with:  {shlex.join(['tune-cnn', *again])}", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone, as in `tune-cnn ... | head`; Python would complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"{error.filename or 'a file'}: {error.strerror or error}; mend that and try again", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tune-cnn",
        description="Train a grid of CNNs on CIFAR-10 with Ray Tune, and answer what the grid was run for.",
        epilog="A first try, on drawn images:\n  tune-cnn sweep configs/quick.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tune-cnn {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    sweep = _command(
        commands, "sweep", _sweep, "train the experiments of config files, several at once; repeat it to resume",
        "tune-cnn sweep configs/exp1_1.yaml configs/exp1_2.yaml --only 'exp1_1_K32*'",
    )  # fmt: skip
    sweep.add_argument("files", nargs="+", type=Path, metavar="FILE", help="config file")
    _add_setting_options(sweep)
    sweep.add_argument("--only", action="append", default=[], metavar="PATTERN", help="only experiments of these names")
    sweep.add_argument("--name", help="the sweep's name (default: made from the files' names)")
    sweep.add_argument(
        "--out", type=Path, default=Path("results"), metavar="DIR", help="result files (default: results)"
    )
    _add_storage_option(sweep)
    sweep.add_argument("--dry-run", action="store_true", help="show what would run, and stop")
    sweep.add_argument(
        "--fresh", action="store_true", help="train everything again, in a new folder; the old one is kept"
    )
    sweep.add_argument(
        "--address", metavar="HOST:PORT", help="join a running Ray cluster (auto: the one on this machine)"
    )
    sweep.add_argument("--cpus", type=_positive, metavar="N", help="cores to use (default: all)")
    sweep.add_argument("--gpus", type=_not_negative, metavar="N", help="GPUs to use (default: all)")

    trial = _command(
        commands, "trial", _trial, "train one experiment in this process; of a finished sweep: repeat and compare it",
        "tune-cnn trial configs/exp1_1.yaml exp1_1_K32_L2\n  tune-cnn trial ray_results/exp1_1 exp1_1_K32_L2",
    )  # fmt: skip
    trial.add_argument("source", metavar="FILE|SWEEP", help="a config file, or a sweep's folder or name")
    trial.add_argument("name", metavar="EXPERIMENT", help="the experiment's name")
    _add_setting_options(trial)
    trial.add_argument(
        "--out", type=Path, default=Path("results"), metavar="DIR", help="result file (default: results)"
    )
    _add_storage_option(trial)
    trial.add_argument("--threads", type=_positive, metavar="N", help="cores to use (default: all; as in the sweep)")
    trial.add_argument(
        "--device", metavar="NAME", help="where to compute, such as cpu or cuda:1 (default: a GPU if any)"
    )

    export = _command(
        commands, "export", _export, "write the JSON file of every finished experiment of a sweep",
        "tune-cnn export ray_results/exp1_1 --out results",
    )  # fmt: skip
    export.add_argument("sweep", metavar="SWEEP", help="a sweep's folder or name")
    export.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="where to (default: results)")
    _add_storage_option(export)

    plot = _command(
        commands, "plot", _plot, "draw a figure for each row of the grid from result files",
        "tune-cnn plot 'exp1_1_K32*' --results results --format pdf",
    )  # fmt: skip
    plot.add_argument(
        "patterns", nargs="*", default=["*"], metavar="PATTERN", help="names of experiments (default: all)"
    )
    plot.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="the result files' folder")
    plot.add_argument("--out", type=Path, metavar="DIR", help="where to (default: the result files' folder)")
    plot.add_argument("--format", choices=["png", "svg", "pdf"], default="png", help="default: png")

    board = _command(
        commands, "board", _board, "watch a sweep, also a running one, in TensorBoard on 127.0.0.1",
        "tune-cnn board ray_results/exp1_1 --port 6006",
    )  # fmt: skip
    board.add_argument("sweep", metavar="SWEEP", help="a sweep's folder or name")
    board.add_argument("--port", type=_not_negative, default=6006, help="default: 6006")
    _add_storage_option(board)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    purpose: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=purpose,
        description=purpose[0].upper() + purpose[1:] + ".",
        epilog=f"Example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def _add_setting_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a setting of the files",
    )
    parser.add_argument("--data", metavar="SOURCE[:PATH]", help="cifar10, shapes or image_folder:PATH")


def _add_storage_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage", default="ray_results", metavar="DIR", help="where sweeps lie (default: ray_results)"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _not_negative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def _sweep(options: argparse.Namespace) -> int:
    from tune_cnn.settings import name_problems
    from tune_cnn.sweep.plan import check_disk, disk_use, make_plan, plan_summary, plan_table, size
    from tune_cnn.sweep.search_space import load_experiments
    from tune_cnn.sweep.storage import SweepFolder

    name = options.name or "-".join(dict.fromkeys(path.stem for path in options.files))
    if problems := name_problems(name):
        raise ConfigError("--name", problems)
    experiments = load_experiments(options.files, overrides=options.overrides, only=options.only, data=options.data)
    folder = SweepFolder(options.storage, name)
    if options.fresh:
        folder.start_over()
    plan = make_plan(experiments, folder)
    use = disk_use(plan, at_once=options.cpus or os.cpu_count() or 1)
    if options.dry_run:
        print(plan_table(plan))
        print(f"disk: up to {size(use.running)} while it runs, {size(use.finished)} in the end")
        return 0
    print(f"sweep {folder}: {plan_summary(plan)}", file=sys.stderr)
    _writable(options.out)
    check_disk(folder, use)

    from tune_cnn.sweep.cluster import ClusterOptions
    from tune_cnn.sweep.lock import locked
    from tune_cnn.sweep.runner import run_sweep

    with locked(folder.folder):
        try:
            failures = run_sweep(experiments, folder, ClusterOptions(options.address, options.cpus, options.gpus))
        finally:
            # Whatever happened, what is finished is in its place.
            _show_results(folder, options.out)
    return 1 if failures else 0


def _show_results(folder: "SweepFolder", out_dir: Path) -> None:
    from tune_cnn.plot import write_figures
    from tune_cnn.sweep.export import export
    from tune_cnn.sweep.outcome import outcome_table

    files, _ = export(folder, out_dir)
    figures = write_figures(files, out_dir)
    print(outcome_table(folder, folder.experiments()))
    for figure in figures:
        print(f"figure: {figure}")
    print(f"{len(files)} result files and {len(figures)} figures in {out_dir}")


def _writable(out_dir: Path) -> None:
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"--out {out_dir}: cannot be used ({error.strerror}); name another folder") from error


def _trial(options: argparse.Namespace) -> int:
    source = Path(options.source)
    if source.suffix in (".yaml", ".yml") or source.is_file():
        return _trial_of_file(options)
    return _trial_of_sweep(options)


def _trial_of_file(options: argparse.Namespace) -> int:
    import torch

    from tune_cnn.experiments import experiment_config, save_experiment, train
    from tune_cnn.sweep.search_space import load_experiments

    experiments = load_experiments([Path(options.source)], overrides=options.overrides, data=options.data)
    settings = _one({e.name: e.settings for e in experiments}, options)
    _writable(options.out)
    if options.threads:
        torch.set_num_threads(options.threads)
    trained = train(settings, device=options.device)
    path = options.out / f"{options.name}.json"
    save_experiment(
        path, experiment_config(options.name, options.out, trained.settings), trained.history, trained.summary()
    )
    print(f"*** Output file {path} written")
    return 0


def _trial_of_sweep(options: argparse.Namespace) -> int:
    import torch

    from tune_cnn.experiments import train
    from tune_cnn.sweep.storage import SweepFolder

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
    torch.set_num_threads(options.threads or summary.get("threads") or torch.get_num_threads())
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


def _one(experiments: "dict[str, Settings]", options: argparse.Namespace) -> "Settings":
    if options.name not in experiments:
        raise ConfigError(options.source, [f"{options.name}: no such experiment; there are {', '.join(experiments)}"])
    return experiments[options.name]


def _export(options: argparse.Namespace) -> int:
    from tune_cnn.sweep.export import export
    from tune_cnn.sweep.storage import SweepFolder

    folder = SweepFolder.find(options.sweep, options.storage)
    _writable(options.out)
    files, unfinished = export(folder, options.out)
    for path in files:
        print(path)
    if unfinished:
        print(f"not finished, so not exported: {', '.join(unfinished)}", file=sys.stderr)
    return 0


def _plot(options: argparse.Namespace) -> int:
    from tune_cnn.errors import ResultError
    from tune_cnn.plot import write_figures

    files = sorted({path for pattern in options.patterns for path in options.results.glob(f"{pattern}.json")})
    if not files:
        raise ResultError(
            f"{options.results}: no result file matches {' '.join(options.patterns)}; check the pattern, or --results"
        )
    out_dir = options.out or options.results
    _writable(out_dir)
    figures = write_figures(files, out_dir, options.format)
    for figure in figures:
        print(figure)
    if not figures:
        raise ResultError(f"{options.results}: none of the {len(files)} files could be drawn")
    return 0


def _board(options: argparse.Namespace) -> int:
    from tune_cnn.sweep.storage import SweepFolder

    folder = SweepFolder.find(options.sweep, options.storage)
    with folder.trials.on_disk() as logdir:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
        command += ["--host", "127.0.0.1", "--port", str(options.port), "--reload_interval", "2"]
        try:
            return subprocess.run(command, check=False).returncode
        except KeyboardInterrupt:
            return 0
