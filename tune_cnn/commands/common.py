"""What several commands need."""

from pathlib import Path

from tune_cnn.errors import StorageError


def check_writable(out_dir: Path) -> None:
    """Make the folder of the results if need be.

    Raises:
        StorageError: It cannot be used.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"--out {out_dir}: cannot be used ({error.strerror}); name another folder") from error
