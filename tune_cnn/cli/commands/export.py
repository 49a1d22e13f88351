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
    files, _, missing, _, failed = export_now(folder, options.out)
    for name, failure in missing.items():
        if failure is not None:
            tell(f"not exported: {name}: {failure}", file=sys.stderr)
    for line in failed:
        tell(line, file=sys.stderr)
    if not files and not failed:
        raise StorageError(f"{folder}: no experiment has an epoch yet, so there is nothing to export; run the sweep")
    for path in files:
        tell(path)
    if not_begun := [name for name, failure in missing.items() if failure is None]:
        tell(f"without an epoch, so not exported: {', '.join(not_begun)}", file=sys.stderr)
    return 1 if failed else 0
