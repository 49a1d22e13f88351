"""Files that are whole or absent: written beside, then renamed. And files of others, read with care."""

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

MOST_BYTES = 128 * 2**20  # of a file of results: several million losses
_MOST_JSON_MEMORY = 450 * 10**6
_MOST_DIGITS = 20  # a whole number of 64 bits, and its sign
_IN_USE = "tune_cnn.lock"  # in a temporary folder: locked for as long as its process lives
BESIDE_SUFFIX = ".tmp"  # of a file that is being written; one that stays was left by a killed process


def read_file(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file of at most `most` bytes that others may have made.

    Raises:
        OSError: It is missing, or may not be read.
        ResultError: It is no regular file, nor a link to one; or larger.
    """
    if os.path.lexists(path) and not path.is_file():  # opening a named pipe would wait for a writer
        raise _refusal(path, "not a regular file")
    with open(path, "rb") as file:
        check_size(str(path), os.fstat(file.fileno()).st_size, most)
        return file.read(most)


def check_size(place: str, count: int, most: int) -> None:
    """Raise a `ResultError` for a file of more than `most` bytes."""
    if count > most:
        raise _refusal(place, f"{size(count)}, where at most {size(most)} are expected")


def _refusal(place: object, fault: str) -> ResultError:
    return ResultError(f"{place}: cannot be read ({fault}); name another file")


def parse_json(content: bytes) -> Any:
    """The value of a JSON text that others may have made.

    Raises:
        ValueError: It is not JSON, or holds more than any file of ours, which could fill the memory.
    """
    # Bytes that Python takes at most: the text and what is in it, up to 4 bytes a character; and each value's own.
    memory = len(content) * (3 if content.isascii() else 9)
    memory += sum(content.count(mark) * taken for mark, taken in ((b",", 40), (b'"', 30), (b"[", 90), (b"{", 200)))
    if memory > _MOST_JSON_MEMORY:
        raise ValueError(f"it would take {size(memory)} of memory, more than any file of ours")
    try:
        text: str | bytes = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError:  # its numbers read alike in all encodings of one byte
        text = content.decode("cp1252", "replace")
    try:
        # Of more digits, Python converts none, and some of what is made of them has no float.
        return json.loads(text, parse_int=lambda digits: (int if len(digits) <= _MOST_DIGITS else float)(digits))
    except RecursionError:
        raise ValueError("lists or objects too deep in one another") from None
    except MemoryError:
        raise ValueError("too large for the memory") from None


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that readers, and a power loss, find the old content or the new one, never a part.

    When this returns, it is the new one, whatever happens. The folder is made if need be.

    Raises:
        OSError: The folder cannot be made, is not writable, or full; the old content is still there.
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
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere, a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        with contextlib.suppress(OSError):  # some network file systems refuse
            os.fsync(folder)  # so that the new name survives a power loss, before the caller deletes an old file
        os.close(folder)


def publish_file(path: Path, content: bytes) -> None:
    """As `replace_file`, but a failure is the user's to fix: a StorageError."""
    try:
        replace_file(path, content)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}); free some space, or name another folder"
        ) from error


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder for this process alone; it is deleted at the end, or by the next process if this one is killed."""
    folder = Path(tempfile.mkdtemp(prefix="tune_cnn-"))
    with deleted_at_end(folder):
        (folder / "files").mkdir()
        yield folder / "files"


@contextlib.contextmanager
def deleted_at_end(folder: Path) -> Iterator[None]:
    """Delete a folder at the end; and now those beside it that killed processes should have deleted."""
    from filelock import FileLock  # not above, since it takes a tenth of a second

    for mark in folder.parent.glob(f"*/{_IN_USE}"):
        with contextlib.suppress(OSError), FileLock(mark, timeout=0):
            shutil.rmtree(mark.parent, ignore_errors=True)
    try:
        with FileLock(folder / f".{_IN_USE}"):
            os.rename(folder / f".{_IN_USE}", folder / _IN_USE)  # nobody finds it before it is locked
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
        raise StorageError(f"{out_dir}: cannot be used ({error.strerror}); name another folder") from error
