"""Report of a sweep from its result files: an HTML page and Markdown that answer its questions, and a CSV."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tune_cnn.plot  # first: it imports Matplotlib even if the user's configuration is broken
from tune_cnn.errors import ResultError
from tune_cnn.files import publish_file
from tune_cnn.report.grids import load_grids
from tune_cnn.report.page import markdown, page
from tune_cnn.report.table import experiments_frame
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
    """Write `<title>_report.html`, `<title>_report.md` and the table of all experiments, `<title>.csv`.

    Args:
        title: The sweep's name.
        result_files: See `load_grids`, also for `asked` and `failures`.
        figures: Image files in `out_dir` that the Markdown shows.

    Raises:
        ResultError: There is nothing to report.
        StorageError: A file cannot be written.
    """
    grids = load_grids(result_files, asked, failures)
    if not grids:
        raise ResultError(f"{title}: no result file to report on; run the sweep, or check the folder of results")
    contents = {
        f"{title}_report.html": page(title, grids),
        f"{title}_report.md": markdown(title, grids, figures),
        f"{title}.csv": experiments_frame(grids).to_csv(index=False),
    }
    for name, content in contents.items():
        publish_file(out_dir / name, content.encode(errors="replace"))
    return [out_dir / name for name in contents]
