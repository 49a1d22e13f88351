"""`tune-cnn report`: write a page and a Markdown file that answer what a sweep was run for."""

import argparse

from tune_cnn.cli.commands.common import check_writable, write_results
from tune_cnn.errors import StorageError
from tune_cnn.sweep.storage import SweepFolder


def run(options: argparse.Namespace) -> int:
    """Write the report, with the result files and figures that it shows, and name its two files."""
    folder = SweepFolder.find(options.sweep, options.storage)
    check_writable(options.out)
    reports = write_results(folder, options.out).reports
    if not reports:
        raise StorageError(f"{folder}: no experiment is finished yet, so there is nothing to report; run the sweep")
    for report in reports:
        print(report)
    return 0
