"""Files that are whole or absent: written beside, then renamed."""

import contextlib
import os
import tempfile
from pathlib import Path

from tune_cnn.errors import StorageError

BESIDE_SUFFIX = ".tmp"  # of a file that is being written; one that stays was left by a killed process


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that readers, and a power loss, find the old content or the new one, never a part.

    When this returns, it is the new one, whatever happens.

    Raises:
        OSError: The folder is missing, not writable, or full; the old content is still there.
    """
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=BESIDE_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    _keep_names(path.parent)


def publish_file(path: Path, content: bytes) -> None:
    """As `replace_file`, but the folder is made if need be, and a failure is the user's to mend.

    Raises:
        StorageError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}); free some space, or name another folder"
        ) from error


def _keep_names(folder: Path) -> None:
    """Make the names in a folder survive a power loss, so that what replaces a file is there before that is deleted."""
    if os.name != "posix":  # where a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse
            os.fsync(handle)
    finally:
        os.close(handle)
