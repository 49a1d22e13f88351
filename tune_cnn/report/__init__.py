"""The report of a sweep: result files -> an HTML page and a Markdown file that answer what the grid was run for."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tune_cnn.plot  # noqa: F401 - first, as it imports Matplotlib whatever the user has configured
from tune_cnn.errors import ResultError
from tune_cnn.files import publish_file
from tune_cnn.report.cells import load_grids
from tune_cnn.report.markdown import markdown
from tune_cnn.report.page import page
from tune_cnn.settings import Settings


def write_report(
    title: str,
    result_files: Sequence[Path],
    out_dir: Path,
    *,
    figures: Sequence[Path] = (),
    asked: Mapping[str, Settings] = {},
    failures: Mapping[str, str] = {},
) -> list[Path]:
    """Write `<title>_report.html` and `<title>_report.md`.

    Args:
        title: The sweep's name.
        result_files: Of its experiments. A file that is damaged or none of ours is named on stderr and left out.
        out_dir: Where to; made if need be.
        figures: Files that the Markdown shows.
        asked: Names and settings of all experiments of the sweep, so that the report names what is missing.
        failures: Why experiments failed, in one line, by name.

    Returns:
        The two files.

    Raises:
        ResultError: There is nothing to report.
        StorageError: A file cannot be written.
    """
    grids = load_grids(result_files, asked, failures)
    if not grids:
        raise ResultError(f"{title}: no result file to report on; run the sweep, or check --out")
    contents = {"html": page(title, grids), "md": markdown(title, grids, figures, out_dir)}
    written = []
    for suffix, content in contents.items():
        path = out_dir / f"{title}_report.{suffix}"
        publish_file(path, content.encode())
        written.append(path)
    return written
