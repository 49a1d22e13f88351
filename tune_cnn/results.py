"""The results of a sweep as commands leave them: result files, figures, report, and the table of how trials ended."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import format_exception_only
from typing import NamedTuple

from tune_cnn.errors import TuneCnnError
from tune_cnn.sweep.export import Exported, export
from tune_cnn.sweep.lock import running
from tune_cnn.sweep.outcome import outcome_table, outcomes
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.texts import counted, tell


class Results(NamedTuple):
    """What `write_results` wrote."""

    files: list[Path]  # of every experiment that has an epoch behind it
    figures: list[Path]  # one for each row of the grid
    reports: list[Path]  # a page, Markdown and CSV; none if no experiment has begun
    failed: list[str]  # what could not be written, and why, in a line each; the rest was


def export_now(folder: SweepFolder, out_dir: Path, not_measured: str | None = None) -> Exported:
    """Write the result files of a sweep as it stands, and say on stderr which experiments are unfinished.

    `not_measured` is that of `export`; None: as long as somebody is running the sweep.
    """
    if not_measured is None and (who := running(folder.folder)) is not None:
        not_measured = f"{who} is running the sweep"
    exported = export(folder, out_dir, not_measured)
    if exported.unfinished:
        tell(f"unfinished, exported as they stand: {', '.join(exported.unfinished)}", file=sys.stderr)
    for remark in exported.remarks:
        tell(remark, file=sys.stderr)
    return exported


def write_results(folder: SweepFolder, out_dir: Path, not_measured: str | None = None) -> Results:
    """As `export_now`, then write figures and report; what fails then leaves the rest.

    Raises:
        StorageError: The sweep's folder is damaged, or a result file cannot be written.
    """
    files, _, missing, _ = export_now(folder, out_dir, not_measured)
    results = Results(files, [], [], [])

    @contextmanager
    def attempt(what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is: the trainings took hours
            reason = error if isinstance(error, TuneCnnError) else "".join(format_exception_only(error))
            why = " ".join(str(reason).split())
            results.failed.append(
                f"{what}: not written ({why}); mend that, then type: tune-cnn report {folder} --out {out_dir}"
            )

    with attempt("figures"):
        from tune_cnn.report.figure_files import write_figures  # imports matplotlib, which other commands do without
        from tune_cnn.report.search import write_search_figure

        results.figures.extend(write_figures(files, out_dir))
        results.figures.extend(write_search_figure(folder.name, files, out_dir))
    asked = folder.experiments()
    failures = {name: failure for name, failure in missing.items() if failure is not None}
    if files or failures:
        with attempt("report"):
            from tune_cnn.report import write_report

            figures = results.figures
            results.reports.extend(
                write_report(folder.name, files, out_dir, figures=figures, asked=asked, failures=failures)
            )
    return results


def show_results(folder: SweepFolder, out_dir: Path) -> bool:
    """Write and name the results; return whether all of them could be written."""
    results = write_results(folder, out_dir, not_measured=f"tune-cnn export {folder} --out {out_dir} measures it")
    experiments = folder.experiments()
    tell(outcome_table(folder, experiments, outcomes(folder, experiments)))
    for figure in results.figures:
        tell(f"figure: {figure}")
    for report in results.reports:
        tell(f"report: {report}")
    tell(f"{counted(len(results.files), 'result file')} and {counted(len(results.figures), 'figure')} in {out_dir}")
    for line in results.failed:
        tell(line, file=sys.stderr)
    return not results.failed
