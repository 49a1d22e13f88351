"""Draw a figure for each row of the grid, and one of a search, from result files."""

from argparse import ArgumentParser, Namespace
from collections import defaultdict
from pathlib import Path

from tune_cnn.errors import ResultError
from tune_cnn.files import check_writable, path_of
from tune_cnn.texts import counted, tell
from tune_cnn.waiting import waiting

EXAMPLE = "tune-cnn plot 'exp1_1_K32*' --results results --format pdf"


def add_arguments(parser: ArgumentParser) -> None:
    names = "names of experiments (default: all)"
    parser.add_argument("patterns", nargs="*", default=["*"], metavar="PATTERN", help=names)
    parser.add_argument("--results", type=path_of, default="results", metavar="DIR", help="the result files' folder")
    parser.add_argument("--out", type=path_of, metavar="DIR", help="where to write (default: the result files' folder)")
    parser.add_argument("--format", choices=["png", "svg", "pdf"], default="png", help="default: png")


def run(options: Namespace) -> int:
    with waiting("loading PyTorch"):
        from tune_cnn.plot import matching
        from tune_cnn.report.figure_files import write_figures
        from tune_cnn.report.runs import read_run
        from tune_cnn.report.search import write_search_figure
        from tune_cnn.result_files import readable
        from tune_cnn.rules import name_problems

    files = matching(options.patterns, options.results)
    if not files:
        fault = f"no result file matches {' '.join(options.patterns)}"
        raise ResultError(f"{options.results}: {fault}; check the name, as in 'exp1_1*', and the folder, --results")
    out_dir = options.out or options.results
    check_writable(out_dir)
    with waiting("drawing the figures"):
        runs = dict(readable(files, read_run))
        figures = write_figures(list(runs), out_dir, options.format)
    searches: dict[str, list[Path]] = defaultdict(list)  # by sweep, which names the figure
    for file, run in runs.items():
        if run.search:
            sweep = str(run.facts.get("sweep", ""))  # not in older files
            searches[options.results.resolve().name if name_problems(sweep) else sweep].append(file)
    for name, samples in searches.items():
        figures += write_search_figure(name, samples, out_dir, options.format)
    for figure in figures:
        tell(figure)
    if not figures:
        needs = "plot needs result files with accuracies, such as tune-cnn export writes"
        raise ResultError(f"{options.results}: nothing to draw in {counted(len(files), 'file')}; {needs}")
    return 0
