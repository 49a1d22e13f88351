"""Atomic writes (to a temporary file, then renamed), and careful reads of untrusted files."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tune_cnn.errors import ResultError, StorageError
from tune_cnn.texts import size

MOST_BYTES = 128 * 2**20  # of a result file: room for several million losses
_MOST_JSON_MEMORY = 450 * 10**6
_MOST_DIGITS = 20  # of a 64-bit integer, with its sign
_IN_USE = "tune_cnn.lock"  # lock file in a temporary folder, held while its process lives
BESIDE_SUFFIX = ".tmp"  # of a file being written; a leftover comes from a killed process


def path_of(text: str | Path) -> Path:
    """The path that a user gave, where `~` stands for the home folder."""
    return Path(os.path.expanduser(text))


def read_file(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read an untrusted file of at most `most` bytes.

    Raises:
        OSError: It is missing or not readable.
        ResultError: It is larger, or neither a regular file nor a link to one.
    """
    if os.path.lexists(path) and not path.is_file():  # opening a named pipe would wait for a writer
        raise ResultError(f"{path}: cannot be read (not a regular file); name another file")
    with open(path, "rb") as file:
        check_size(str(path), os.fstat(file.fileno()).st_size, most)
        return file.read(most)


def check_size(place: str, count: int, most: int) -> None:
    """Raise a `ResultError` for a file of more than `most` bytes."""
    if count > most:
        expected = f"{size(count)}, where at most {size(most)} are expected"
        raise ResultError(f"{place}: cannot be read ({expected}); name another file")


def parse_json(content: bytes) -> Any:
    """Parse untrusted JSON.

    Raises:
        ValueError: It is not JSON, or would take more memory than any file of ours.
    """
    # Upper bound of the memory: input, text and strings (up to 4 bytes a character), and an overhead per value.
    memory = len(content) * (3 if content.isascii() else 9)
    memory += sum(content.count(mark) * taken for mark, taken in ((b",", 40), (b'"', 30), (b"[", 90), (b"{", 200)))
    if memory > _MOST_JSON_MEMORY:
        raise ValueError(f"it would take {size(memory)} of memory, more than any file of ours")
    try:
        text: str | bytes = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError:  # numbers are the same in every single-byte encoding
        text = content.decode("cp1252", "replace")
    try:
        # Python refuses to convert thousands of digits, and an int beyond float's range would fail later.
        return json.loads(text, parse_int=lambda digits: (int if len(digits) <= _MOST_DIGITS else float)(digits))
    except RecursionError:
        raise ValueError("lists or objects nested too deep") from None
    except MemoryError:
        raise ValueError("too large for the memory") from None


def replace_file(path: Path, content: bytes) -> None:
    """Write a file atomically: readers, also after a power loss, find the old content or the new, never a part.

    Once this returns, the new content is safe from a power loss. Missing parent folders are created.

    Raises:
        OSError: The folder cannot be created or written to, or is full; the old content is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=BESIDE_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException as error:
        Path(beside).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # such as a full disk, which names no file
            error.filename = str(path)
        raise
    with contextlib.suppress(OSError):  # Windows opens no folders, and some network file systems refuse to sync them
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # makes the rename durable before the caller deletes an old file
        finally:
            os.close(folder)


def publish_file(path: Path, content: bytes) -> None:
    """Write a file as `replace_file` does, but raise a StorageError, which the user can fix, if that fails."""
    try:
        replace_file(path, content)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}); free some space, or name another folder"
        ) from error


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create a folder for this process alone; deleted at the end, or by the next process if this one is killed."""
    folder = Path(tempfile.mkdtemp(prefix="tune_cnn-"))
    with deleted_at_end(folder):
        (folder / "files").mkdir()
        yield folder / "files"


@contextlib.contextmanager
def deleted_at_end(folder: Path) -> Iterator[None]:
    """Delete a folder at the end, and at once any folders beside it that killed processes left behind."""
    from filelock import FileLock  # here, since the import takes a tenth of a second

    for mark in folder.parent.glob(f"*/{_IN_USE}"):
        with contextlib.suppress(OSError), FileLock(mark, timeout=0):
            shutil.rmtree(mark.parent, ignore_errors=True)
    try:
        with FileLock(folder / f".{_IN_USE}"):
            os.rename(folder / f".{_IN_USE}", folder / _IN_USE)  # locked before other processes can find it
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_writable(out_dir: Path) -> None:
    """Create the result folder if missing, and check before hours of training that it is writable.

    Raises:
        StorageError: It cannot be created or written to.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out_dir):
            pass
    except OSError as error:
        raise StorageError(f"{out_dir}: cannot be used ({error.strerror}); name another folder") from error
