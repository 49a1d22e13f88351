"""What the command line takes. Nothing here imports what a command needs, so that help answers at once."""

import argparse
from pathlib import Path

from tune_cnn import __version__


def parser() -> argparse.ArgumentParser:
    """What each command takes, and its help."""
    root = argparse.ArgumentParser(
        prog="tune-cnn",
        description="Train a grid of CNNs on CIFAR-10 with Ray Tune, and answer what the grid was run for.",
        epilog="A first try, on drawn images:\n  tune-cnn sweep configs/quick.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"tune-cnn {__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)

    sweep = _command(
        commands, "sweep", "train the experiments of config files, several at once; repeat it to resume",
        "tune-cnn sweep configs/exp1_1.yaml configs/exp1_2.yaml --only 'exp1_1_K32*'",
    )  # fmt: skip
    sweep.add_argument("files", nargs="+", type=Path, metavar="FILE", help="config file")
    _add_setting_options(sweep)
    _add_only_option(sweep)
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
        commands, "trial", "train one experiment in this process; of a finished sweep: repeat and compare it",
        "tune-cnn trial configs/exp1_1.yaml exp1_1_K32_L2\n  tune-cnn trial ray_results/exp1_1 exp1_1_K32_L2",
    )  # fmt: skip
    trial.add_argument("source", metavar="FILE|SWEEP", help="a config file, or a sweep's folder or name")
    trial.add_argument("name", metavar="EXPERIMENT", help="the experiment's name")
    _add_setting_options(trial)
    trial.add_argument(
        "--out",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="result file of one in a config file (default: results)",
    )
    _add_storage_option(trial)
    trial.add_argument("--threads", type=_positive, metavar="N", help="cores to use (default: all; as in the sweep)")
    trial.add_argument(
        "--device", metavar="NAME", help="where to compute, such as cpu or cuda:1 (default: a GPU if any)"
    )

    diagnose = _command(
        commands, "diagnose", "tell before any training which networks will learn, why not, and what helps",
        "tune-cnn diagnose configs/exp1_1.yaml --only 'exp1_1_K32*'",
    )  # fmt: skip
    diagnose.add_argument("files", nargs="+", type=Path, metavar="FILE", help="config file")
    _add_setting_options(diagnose)
    _add_only_option(diagnose)

    status = _command(
        commands, "status", "show how far a sweep is, also while it runs",
        "tune-cnn status ray_results/exp1_1",
    )  # fmt: skip
    status.add_argument("sweep", metavar="SWEEP", help="a sweep's folder or name")
    _add_storage_option(status)

    export = _command(
        commands, "export", "write the JSON file of every finished experiment of a sweep",
        "tune-cnn export ray_results/exp1_1 --out results",
    )  # fmt: skip
    export.add_argument("sweep", metavar="SWEEP", help="a sweep's folder or name")
    export.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="where to (default: results)")
    _add_storage_option(export)

    plot = _command(
        commands, "plot", "draw a figure for each row of the grid from result files",
        "tune-cnn plot 'exp1_1_K32*' --results results --format pdf",
    )  # fmt: skip
    plot.add_argument(
        "patterns", nargs="*", default=["*"], metavar="PATTERN", help="names of experiments (default: all)"
    )
    plot.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="the result files' folder")
    plot.add_argument("--out", type=Path, metavar="DIR", help="where to (default: the result files' folder)")
    plot.add_argument("--format", choices=["png", "svg", "pdf"], default="png", help="default: png")

    report = _command(
        commands, "report", "answer what a sweep was run for: a page, a Markdown file and a CSV, with figures",
        "tune-cnn report ray_results/exp1_1 --out results",
    )  # fmt: skip
    report.add_argument("sweep", metavar="SWEEP", help="a sweep's folder or name")
    report.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="where to (default: results)")
    _add_storage_option(report)

    bench = _command(
        commands, "bench", "measure this machine: training and validation against a loop written by hand",
        "tune-cnn bench configs/exp1_1.yaml --data shapes --only '*_K32_L4' --set precision=bf16 --out bench.json",
    )  # fmt: skip
    bench.add_argument(
        "file", nargs="?", type=Path, metavar="CONFIG", help="config file (default: four cells on drawn images)"
    )
    _add_setting_options(bench)
    bench.add_argument("--only", action="append", default=[], metavar="PATTERN", help="only experiments of these names")
    bench.add_argument("--threads", type=_positive, metavar="N", help="cores to use (default: all)")
    bench.add_argument("--batches", type=_positive, default=20, metavar="N", help="per turn (default: 20)")
    bench.add_argument("--rounds", type=_positive, default=5, metavar="N", help="turns of each (default: 5)")
    bench.add_argument("--out", type=Path, metavar="FILE", help="write all figures as JSON")

    board = _command(
        commands, "board", "watch a sweep, also a running one, in TensorBoard on 127.0.0.1",
        "tune-cnn board ray_results/exp1_1 --port 6006",
    )  # fmt: skip
    board.add_argument("sweep", metavar="SWEEP", help="a sweep's folder or name")
    board.add_argument("--port", type=_port, default=6006, help="default: 6006")
    _add_storage_option(board)
    return root


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, purpose: str, example: str
) -> argparse.ArgumentParser:
    """A command, which the module of its name in `tune_cnn.cli.commands` runs."""
    parser = commands.add_parser(
        name,
        help=purpose,
        description=purpose[0].upper() + purpose[1:] + ".",
        epilog=f"Example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what resumes a command leaves out --fresh, which has to be found
    )
    parser.set_defaults(command=name)
    return parser


def _add_setting_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_change,
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a setting of the files, such as epochs=5; or data.train_images=3000, seeds=[1,2], ...",
    )
    sources = "cifar10, cifar100, svhn, mnist, fashion_mnist, shapes, image_folder:FOLDER or arrays:FILE.npz"
    parser.add_argument("--data", metavar="SOURCE[:PATH]", help=sources)


def _add_only_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="only experiments of these names"
    )


def _add_storage_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage", default="ray_results", metavar="DIR", help="where sweeps lie (default: ray_results)"
    )


def _change(text: str) -> str:
    key, _, value = text.partition("=")
    if not value.strip():
        key = key.partition(" ")[0].rstrip(":") or "KEY"
        raise argparse.ArgumentTypeError(f"{text!r} has no value; write --set {key}=VALUE, in one word")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a whole number from 0 to 65535")
    return int(text)


def _not_negative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)
