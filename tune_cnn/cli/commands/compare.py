"""Show sweeps side by side: which cells changed, and by how much; exit code 1 if one did, or is missing."""

from argparse import ArgumentParser, Namespace

from tune_cnn.cli.options import add_storage, open_sweep
from tune_cnn.errors import ConfigError
from tune_cnn.files import temporary_folder
from tune_cnn.texts import aligned, tell
from tune_cnn.waiting import waiting

EXAMPLE = "tune-cnn compare exp1_1 exp1_1_he"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP", help="folders or names; the first is the baseline")
    add_storage(parser)


def run(options: Namespace) -> int:
    if len(options.sweeps) < 2:
        raise ConfigError("compare", ["one sweep has nothing to be compared with; name two or more"])
    if twice := [sweep for sweep in options.sweeps if options.sweeps.count(sweep) > 1]:
        raise ConfigError("compare", [f"{twice[0]} is named twice; name it once"])
    folders = [open_sweep(sweep, options) for sweep in options.sweeps]
    named = [folder.name for folder in folders]
    names = [sweep if named.count(name) > 1 else name for name, sweep in zip(named, options.sweeps, strict=True)]
    from tune_cnn.report.compare import compare
    from tune_cnn.report.grids import load_grids
    from tune_cnn.results import export

    runs = {}
    for name, folder in zip(names, folders, strict=True):
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
