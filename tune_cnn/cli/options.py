"""Options that several commands share, and their argparse types; nothing heavy, so that --help answers at once."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from functools import partial
from typing import TYPE_CHECKING, Any

from tune_cnn.files import path_of
from tune_cnn.sweep.config.shipped import config_path
from tune_cnn.waiting import waiting

MANY: Any = {"action": "append", "default": []}  # of an option that may be given several times
_UNITS_S = {"s": 1, "m": 60, "h": 3600}

if TYPE_CHECKING:
    from tune_cnn.sweep.sweep_folder import SweepFolder


def add_files(parser: ArgumentParser) -> None:
    """Add config files, and the options that change and select their experiments."""
    source = "config file, or a shipped one's name, such as quick"
    parser.add_argument("files", nargs="+", type=config_path, metavar="FILE", help=source)
    add_settings(parser)
    add_only(parser)


def add_settings(parser: ArgumentParser) -> None:
    changes = "change a setting of the files, such as epochs=5; or data.train_images=3000, seeds=[1,2], ..."
    parser.add_argument("--set", type=_change, metavar="KEY=VALUE", dest="overrides", help=changes, **MANY)
    sources = "cifar10, cifar100, svhn, mnist, fashion_mnist, shapes, image_folder:FOLDER or arrays:FILE.npz"
    parser.add_argument("--data", metavar="SOURCE[:PATH]", help=sources)


def add_only(parser: ArgumentParser) -> None:
    parser.add_argument("--only", metavar="PATTERN", help="only experiments of these names", **MANY)


def add_sweep(parser: ArgumentParser) -> None:
    """Add an existing sweep, and `--storage`."""
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep's folder or name")
    add_storage(parser)


def open_sweep(sweep: str, options: Namespace) -> "SweepFolder":
    """Open the sweep in this folder, or of this name in the storage that the option of `add_storage` gives.

    Raises:
        StorageError: There is no such sweep.
    """
    with waiting("loading PyTorch"):
        from tune_cnn.sweep.sweep_folder import SweepFolder

    return SweepFolder.find(sweep, options.storage)


def add_out(parser: ArgumentParser, help: str = "where to write") -> None:
    parser.add_argument("--out", type=path_of, default="results", metavar="DIR", help=f"{help} (default: results)")


def add_storage(parser: ArgumentParser) -> None:
    place = "where sweeps are stored (default: ray_results)"
    parser.add_argument("--storage", default="ray_results", metavar="DIR", help=place)


def _change(text: str) -> str:
    if not all(part.strip() for part in text.partition("=")):
        raise ArgumentTypeError(f"{text!r} is not KEY=VALUE in one word; write one such as --set epochs=5")
    return text


def seconds(text: str) -> float:
    """Argparse type: a length of time, such as `90`, `90s`, `30m` or `2h`, in seconds."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS_S else (text, "s")
    try:
        duration_s = float(number) * _UNITS_S[unit]
    except ValueError:
        duration_s = 0.0
    if not 0 < duration_s < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a length of time; write one such as 90s, 30m or 2h")
    return duration_s


def whole(text: str, least: int = 0) -> int:
    """Argparse type: an integer from 0 up, or from `least`."""
    if not text.isdecimal() or int(text) < least:
        raise ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
    return int(text)


positive = partial(whole, least=1)
