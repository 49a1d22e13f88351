"""`tune-cnn export`: write the JSON file of every finished experiment of a sweep."""

import argparse
import sys

from tune_cnn.cli.commands.common import check_writable
from tune_cnn.errors import StorageError
from tune_cnn.sweep.export import export
from tune_cnn.sweep.storage import SweepFolder
from tune_cnn.texts import tell


def run(options: argparse.Namespace) -> int:
    """Write the files, and name them."""
    folder = SweepFolder.find(options.sweep, options.storage)
    check_writable(options.out)
    files, unfinished = export(folder, options.out)
    if not files:
        raise StorageError(f"{folder}: no experiment is finished yet, so there is nothing to export; run the sweep")
    for path in files:
        tell(path)
    if unfinished:
        tell(f"not finished, so not exported: {', '.join(unfinished)}", file=sys.stderr)
    return 0
