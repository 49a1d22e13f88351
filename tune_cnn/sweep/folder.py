"""A folder whose files are either whole or absent, on a local disk or on S3."""

import contextlib
import errno
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, TypeVar

from tune_cnn.errors import StorageError
from tune_cnn.files import MOST_BYTES, check_size, read_file, replace_file, temporary_folder

_T = TypeVar("_T")
FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
# Permanent errors, which are not retried; any other may be transient, such as one of a restarting server.
_FINAL = {*FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_FINAL |= {errno.ENAMETOOLONG, errno.ELOOP}
# File systems, by their names in stat(1), that other machines cannot write to unless they are exported.
_OWN_DISKS = {"ext2/ext3", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs", "ramfs", "overlayfs"}
_REQUEST_S = 15.0  # to wait for an S3 server that sends nothing
_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.1, 1.0


class Folder:
    """A folder on a local disk, or below a URI that pyarrow knows; it can be pickled.

    It is the folder `inner` below `root`, which is an absolute path, or a URI such as `s3://bucket/path?region=...`.
    Every method raises a `StorageError` if the storage fails for longer than `patience_s`.
    """

    patience_s: ClassVar[float] = 10.0  # how long this process retries

    def __init__(self, root: str, inner: str = "") -> None:
        self.root, self.inner = root, inner
        self.is_local = "://" not in root

    def __truediv__(self, name: str) -> "Folder":
        return type(self)(self.root, str(PurePosixPath(self.inner) / name))

    def __str__(self) -> str:
        base, _, query = (self.root, "", "") if self.is_local else self.root.partition("?")
        return f"{base.rstrip('/')}/{self.inner}" + (f"?{query}" if query else "")

    @property
    def local_path(self) -> Path:
        """The folder on this machine's disk."""
        assert self.is_local
        return Path(self.root) / self.inner

    @property
    def is_own_disk(self) -> bool:
        """Whether it is on a file system that only this machine sees; the folder is created if need be."""
        if not self.is_local or sys.platform != "linux":
            return self.is_local
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            self.local_path.mkdir(parents=True, exist_ok=True)
            command = ["stat", "-f", "-c", "%T", str(self.local_path)]
            return subprocess.check_output(command, text=True).strip() in _OWN_DISKS
        return False

    def read(self, name: str, most: int = MOST_BYTES) -> bytes | None:
        """The content of a file of at most `most` bytes, or None if it does not exist.

        Raises:
            ResultError: It is not a regular file, or it is larger.
        """

        def read() -> bytes | None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if self.is_local:
                    return read_file(self.local_path / name, most)
                filesystem, path = self._remote()
                with filesystem.open_input_file(f"{path}/{name}") as file:
                    check_size(str(self / name), file.size(), most)
                    return bytes(file.read())
            return None

        return self._insist(read, "read", name)

    def age_s(self, name: str) -> float:
        """Seconds since a file was written, by this machine's clock; infinite if it does not exist."""

        def written() -> float:
            filesystem, path = self._remote()
            return (filesystem.get_file_info(f"{path}/{name}").mtime_ns or -math.inf) / 1e9

        return time.time() - self._insist(written, "read", name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all; the folder is created if need be."""

        def write() -> None:
            if self.is_local:
                replace_file(self.local_path / name, content)
                return
            filesystem, path = self._remote()
            try:
                stream = filesystem.open_output_stream(f"{path}/{name}")
            except FileNotFoundError:  # not an object store: here, folders must exist
                filesystem.create_dir(path, recursive=True)
                stream = filesystem.open_output_stream(f"{path}/{name}")
            with stream:  # an object appears only when its upload is complete
                stream.write(content)

        self._insist(write, "written", name)

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""

        def delete() -> None:
            with contextlib.suppress(FileNotFoundError):
                if self.is_local:
                    (self.local_path / name).unlink()
                    return
                filesystem, path = self._remote()
                filesystem.delete_file(f"{path}/{name}")

        self._insist(delete, "deleted", name)

    def names(self) -> list[str]:
        """The sorted names of the files and folders in it; empty if it does not exist."""

        def names() -> list[str]:
            if self.is_local:
                return sorted(p.name for p in self.local_path.iterdir()) if self.local_path.is_dir() else []
            from pyarrow.fs import FileSelector

            filesystem, path = self._remote()
            return sorted(info.base_name for info in filesystem.get_file_info(FileSelector(path, allow_not_found=True)))

        return self._insist(names, "listed")

    def _insist(self, action: Callable[[], _T], done: str, name: str = "") -> _T:
        end, pause = time.monotonic() + self.patience_s, _FIRST_PAUSE_S
        while True:
            try:
                return action()
            except OSError as error:
                # There is always a second try: this process may have been suspended during the first.
                if error.errno in _FINAL or (time.monotonic() + pause > end and pause > _FIRST_PAUSE_S):
                    raise self.failed(error, done, name) from error
            time.sleep(pause)
            pause = min(2 * pause, _MOST_PAUSE_S)

    def failed(self, error: OSError, done: str, name: str = "") -> StorageError:
        """The error to raise, with its cause and a remedy; `done` is what failed, such as `read` or `written`."""
        if error.errno in FULL:
            whole = type(self)(self.root, PurePosixPath(self.inner).parts[0] if self.inner else "")
            return StorageError(f"{whole}: {FULL[error.errno]}; make room, then run the same command again to continue")
        cause = error.strerror or " ".join(str(error).split())
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            return StorageError(f"{self}: a part of this path is a file, not a folder; name another storage")
        remedy = "fix that" if self.is_local else "check that it answers and that its keys are right"
        return StorageError(
            f"{self / name}: cannot be {done} ({cause}); {remedy} and try again; a sweep continues where it was"
        )

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Its event files on this machine's disk: the folder itself, or a copy of the remote files as they are now."""
        if self.is_local:
            yield self.local_path
            return
        with temporary_folder() as copy:
            for inner in self.names():
                for name in (self / inner).names():
                    if name.startswith("events."):
                        (copy / inner).mkdir(exist_ok=True)
                        (copy / inner / name).write_bytes((self / inner).read(name) or b"")
            yield copy

    def _remote(self) -> tuple[Any, str]:
        filesystem, path = _filesystem(self.root)
        return filesystem, f"{path.rstrip('/')}/{self.inner}".rstrip("/")


def path_or_uri(place: str) -> str:
    """The absolute path, for a `file:` URI too; other URIs as they are."""
    path = _filesystem(place)[1] if place.startswith("file:") else place
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


@cache
def _filesystem(uri: str) -> tuple[Any, str]:
    from pyarrow.fs import AwsStandardS3RetryStrategy, FileSystem, S3FileSystem

    try:
        filesystem, path = FileSystem.from_uri(uri)
        if isinstance(filesystem, S3FileSystem):
            if not path.strip("/"):
                raise ValueError("it names no bucket")
            # A URI cannot hold these options. By default, pyarrow waits 99 seconds for a silent server, and sends even
            # the smallest file in three requests.
            make, (options,) = filesystem.__reduce__()
            once = AwsStandardS3RetryStrategy(max_attempts=1)
            timeouts = {"connect_timeout": _REQUEST_S, "request_timeout": _REQUEST_S}
            filesystem = make({**options, **timeouts, "retry_strategy": once, "allow_delayed_open": True})
        return filesystem, path
    except (OSError, ValueError, NotImplementedError) as error:
        raise StorageError(f"{uri}: this storage cannot be used ({error}); check the URI") from error
