"""`tune-cnn report`: write a page and a Markdown file that answer what a sweep was run for, and its table as CSV."""

import argparse
import sys

from tune_cnn.cli.commands.common import check_writable, write_results
from tune_cnn.errors import StorageError
from tune_cnn.sweep.storage import SweepFolder
from tune_cnn.texts import tell


def run(options: argparse.Namespace) -> int:
    """Write the report, with the result files and figures that it shows, and name its three files."""
    folder = SweepFolder.find(options.sweep, options.storage)
    check_writable(options.out)
    results = write_results(folder, options.out)
    if not results.reports and not results.failed:
        raise StorageError(f"{folder}: no experiment has an epoch yet, so there is nothing to report; run the sweep")
    for report in results.reports:
        tell(report)
    for line in results.failed:
        tell(line, file=sys.stderr)
    return 1 if results.failed else 0
