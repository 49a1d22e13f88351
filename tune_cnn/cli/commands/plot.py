"""`tune-cnn plot`: draw a figure for each row of the grid from result files."""

import argparse
import glob

from tune_cnn.cli.commands.common import check_writable
from tune_cnn.errors import ResultError
from tune_cnn.report.figures import write_figures
from tune_cnn.texts import tell


def run(options: argparse.Namespace) -> int:
    """Write the figures, and name them."""
    patterns = [f"{pattern.removesuffix('.json')}.json" for pattern in options.patterns]
    names = {name for pattern in patterns for name in glob.glob(pattern, root_dir=options.results)}
    files = [options.results / name for name in sorted(names)]
    if not files:
        raise ResultError(
            f"{options.results}: no result file matches {' '.join(options.patterns)}; check the pattern, or --results"
        )
    out_dir = options.out or options.results
    check_writable(out_dir)
    figures = write_figures(files, out_dir, options.format)
    for figure in figures:
        tell(figure)
    if not figures:
        raise ResultError(f"{options.results}: none of the {len(files)} files could be drawn")
    return 0
