"""A folder of files that are whole or absent, on a local disk or on S3."""

import contextlib
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from tune_cnn.errors import StorageError
from tune_cnn.files import MOST_BYTES, check_size, read_file, replace_file


class Folder:
    """A folder on a local disk, or below a URI that pyarrow knows; it can be sent to other processes.

    Args:
        root: An absolute path, or a URI such as `s3://bucket/path?region=...`.
        inner: The folder below it.
    """

    def __init__(self, root: str, inner: str = "") -> None:
        self.root = root
        self.inner = inner
        self.is_local = "://" not in root

    def __truediv__(self, name: str) -> "Folder":
        return type(self)(self.root, str(PurePosixPath(self.inner) / name))

    def __str__(self) -> str:
        base, _, query = self.root.partition("?")
        return f"{base.rstrip('/')}/{self.inner}" + (f"?{query}" if query else "")

    @property
    def local_path(self) -> Path:
        """The folder on this machine's disk."""
        assert self.is_local
        return Path(self.root) / self.inner

    def read(self, name: str, most: int = MOST_BYTES) -> bytes | None:
        """The content of a file of at most `most` bytes, or None if there is none.

        Raises:
            ResultError: It is no regular file, or larger.
        """
        if self.is_local:
            try:
                return read_file(self.local_path / name, most)
            except (FileNotFoundError, NotADirectoryError):
                return None
        filesystem, path = self._remote()
        try:
            with filesystem.open_input_file(f"{path}/{name}") as file:
                check_size(f"{self}/{name}", file.size(), most)
                return bytes(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all; the folder is made if need be."""
        if self.is_local:
            self.local_path.mkdir(parents=True, exist_ok=True)
            replace_file(self.local_path / name, content)
            return
        filesystem, path = self._remote()
        try:
            stream = filesystem.open_output_stream(f"{path}/{name}")
        except FileNotFoundError:  # where folders are more than a part of an object's name
            filesystem.create_dir(path, recursive=True)
            stream = filesystem.open_output_stream(f"{path}/{name}")
        with stream:  # an object appears when its upload is complete
            stream.write(content)

    def create(self, name: str, content: bytes) -> None:
        """Write a file if there is none; on a local disk, of several who try at once exactly one succeeds."""
        if not self.is_local:
            self.write(name, content)
            return
        self.local_path.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), (self.local_path / name).open("xb") as file:
            file.write(content)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.is_local:
            (self.local_path / name).unlink(missing_ok=True)
            return
        filesystem, path = self._remote()
        with contextlib.suppress(FileNotFoundError):
            filesystem.delete_file(f"{path}/{name}")

    def names(self) -> list[str]:
        """The names of the files and folders in it, sorted; none if it does not exist."""
        if self.is_local:
            return sorted(p.name for p in self.local_path.iterdir()) if self.local_path.is_dir() else []
        from pyarrow.fs import FileSelector

        filesystem, path = self._remote()
        return sorted(info.base_name for info in filesystem.get_file_info(FileSelector(path, allow_not_found=True)))

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Its event files on this machine's disk: the folder itself, or a copy of what is remote now."""
        if self.is_local:
            yield self.local_path
            return
        with tempfile.TemporaryDirectory(prefix="tune_cnn-") as copy:
            for inner in self.names():
                for name in (self / inner).names():
                    if name.startswith("events."):
                        (Path(copy) / inner).mkdir(exist_ok=True)
                        (Path(copy) / inner / name).write_bytes((self / inner).read(name) or b"")
            yield Path(copy)

    def _remote(self) -> tuple[Any, str]:
        filesystem, path = _filesystem(self.root)
        return filesystem, f"{path.rstrip('/')}/{self.inner}".rstrip("/")


@cache
def _filesystem(uri: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    try:
        return FileSystem.from_uri(uri)  # type: ignore[no-any-return]
    except (OSError, ValueError, NotImplementedError) as error:
        raise StorageError(f"{uri}: this storage cannot be used ({error}); check the URI") from error
