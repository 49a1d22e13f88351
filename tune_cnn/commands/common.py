"""What several commands need."""

import tempfile
from pathlib import Path

from tune_cnn.errors import StorageError


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
