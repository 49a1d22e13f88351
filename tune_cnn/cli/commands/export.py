"""Write the JSON file of every experiment of a sweep that has begun."""

import sys
from argparse import ArgumentParser, Namespace

from tune_cnn.cli.options import add_out, add_sweep, open_sweep
from tune_cnn.errors import StorageError
from tune_cnn.files import check_writable
from tune_cnn.texts import tell

EXAMPLE = "tune-cnn export ray_results/exp1_1 --out results"


def add_arguments(parser: ArgumentParser) -> None:
    add_sweep(parser)
    add_out(parser)


def run(options: Namespace) -> int:
    folder = open_sweep(options.sweep, options)
    from tune_cnn.results import export_now
    from tune_cnn.sweep.remarks import replaced

    check_writable(options.out)
    for remark in replaced({name: s.trial_id for name, s in folder.experiments().items()}, options.out):
        tell(remark, file=sys.stderr)
    found = export_now(folder, options.out)
    for name, failure in found.failures.items():
        tell(f"not exported: {name}: {failure}", file=sys.stderr)
    for line in found.failed:
        tell(line, file=sys.stderr)
    if not found.files and not found.failed:
        raise StorageError(f"{folder}: no experiment has an epoch yet, so there is nothing to export; run the sweep")
    for path in found.files:
        tell(path)
    if not_begun := [name for name, failure in found.missing.items() if failure is None]:
        tell(f"without an epoch, so not exported: {', '.join(not_begun)}", file=sys.stderr)
    return 1 if found.failed else 0
