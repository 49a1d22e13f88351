"""Answer what a sweep was run for: a page, a Markdown file and a CSV, with figures."""

import sys
from argparse import ArgumentParser, Namespace

from tune_cnn.cli.options import add_out, add_sweep, open_sweep
from tune_cnn.errors import StorageError
from tune_cnn.files import check_writable
from tune_cnn.texts import tell

EXAMPLE = "tune-cnn report ray_results/exp1_1 --out results"


def add_arguments(parser: ArgumentParser) -> None:
    add_sweep(parser)
    add_out(parser)


def run(options: Namespace) -> int:
    folder = open_sweep(options.sweep, options)
    from tune_cnn.results import write_results

    check_writable(options.out)
    results = write_results(folder, options.out)
    if not results.reports and not results.failed:
        raise StorageError(f"{folder}: no experiment has an epoch yet, so there is nothing to report; run the sweep")
    for report in results.reports:
        tell(report)
    for line in results.failed:
        tell(line, file=sys.stderr)
    return 1 if results.failed else 0
