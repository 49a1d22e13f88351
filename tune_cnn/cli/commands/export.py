"""`tune-cnn export`: write the JSON file of every experiment of a sweep that has begun."""

import argparse
import sys

from tune_cnn.cli.commands.common import check_writable, export_now
from tune_cnn.errors import StorageError
from tune_cnn.sweep.storage import SweepFolder
from tune_cnn.texts import tell


def run(options: argparse.Namespace) -> int:
    """Write the files, and name them."""
    folder = SweepFolder.find(options.sweep, options.storage)
    check_writable(options.out)
    files, _, missing, _ = export_now(folder, options.out)
    if not files:
        raise StorageError(f"{folder}: no experiment has an epoch yet, so there is nothing to export; run the sweep")
    for path in files:
        tell(path)
    if missing:
        tell(f"without an epoch, so not exported: {', '.join(missing)}", file=sys.stderr)
    return 0
