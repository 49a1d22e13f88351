"""Show sweeps side by side: which cells changed, and by how much; exit code 1 if one did, or is missing."""

from argparse import ArgumentParser, Namespace

from tune_cnn.cli.options import add_storage, open_sweep
from tune_cnn.files import temporary_folder
from tune_cnn.texts import aligned, tell
from tune_cnn.waiting import waiting

EXAMPLE = "tune-cnn compare exp1_1 exp1_1_he"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("baseline", metavar="SWEEP", help="folder or name of the sweep to compare with")
    parser.add_argument("others", nargs="+", metavar="SWEEP", help="those of further sweeps")
    add_storage(parser)


def run(options: Namespace) -> int:
    folders = {name: open_sweep(name, options) for name in (options.baseline, *options.others)}
    from tune_cnn.report.compare import compare
    from tune_cnn.report.grids import load_grids
    from tune_cnn.results import export

    runs = {}
    for name, folder in folders.items():
        with temporary_folder() as scratch, waiting(f"reading {name}"):
            files = export(folder, scratch, not_measured="it is not shown").files
            runs[name] = [run for grid in load_grids(files, folder.experiments()) for run in grid.runs]
    found = compare(runs)
    tell(aligned(found.rows))
    for line in [found.best, *found.settings]:
        tell(line)
    missing = f"; {found.missing} have no final result in some sweep" if found.missing else ""
    tell(f"{found.changed} of {len(found.rows) - 1} cells changed{missing}")
    return 1 if found.changed or found.missing else 0
