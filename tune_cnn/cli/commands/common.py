"""What several commands need."""

import tempfile
from pathlib import Path
from typing import NamedTuple

from tune_cnn.errors import StorageError
from tune_cnn.sweep.export import export
from tune_cnn.sweep.storage import SweepFolder


def check_writable(out_dir: Path) -> None:
    """Make the folder of the results if need be, and try to write there: hours later would be too late to find out.

    Raises:
        StorageError: It cannot be used.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out_dir):
            pass
    except OSError as error:
        raise StorageError(f"--out {out_dir}: cannot be used ({error.strerror}); name another folder") from error


class Results(NamedTuple):
    """What `write_results` wrote.

    Attributes:
        files: The result file of every finished experiment.
        figures: A figure for each row of the grid.
        reports: The report, as a page and as Markdown; none if no experiment is finished or has failed.
    """

    files: list[Path]
    figures: list[Path]
    reports: list[Path]


def write_results(folder: SweepFolder, out_dir: Path) -> Results:
    """Write the result files, figures and report of a sweep as it stands.

    Raises:
        StorageError: The sweep's folder is damaged, or a file cannot be written.
    """
    # These import matplotlib, which other commands do without.
    from tune_cnn.report import write_report
    from tune_cnn.report.figures import write_figures

    files, unfinished = export(folder, out_dir)
    figures = write_figures(files, out_dir)
    asked = folder.experiments()
    failures = {name: failure for name in unfinished if (failure := folder.trial(asked[name]).failure()) is not None}
    if not files and not failures:
        return Results(files, figures, [])
    reports = write_report(folder.name, files, out_dir, figures=figures, asked=asked, failures=failures)
    return Results(files, figures, reports)
