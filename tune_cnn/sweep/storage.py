"""Every path and file name of a sweep, on a local disk or on S3.

    <storage>/<sweep>/
        sweep.json                  the experiments that were asked for last
        lock.json                   who is running the sweep, while it runs
        trials/K32_L2_<trial id>/
            epoch_0007.pt           where the training continues: the two newest, until it ends
            record.json             settings, results, facts: there exactly when the trial is finished
            best.pt                 its weights with the best validation accuracy
            error.txt               why it failed last
            events.out.tfevents.*   for TensorBoard

Ray's own state is not kept: what is finished is known from these files alone, so a sweep can grow, shrink and resume.
"""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from tune_cnn.errors import ConfigError, ResultError, StorageError
from tune_cnn.experiments import parse_result, to_strict_json
from tune_cnn.files import replace_file
from tune_cnn.settings import Settings
from tune_cnn.train_results import FitResult
from tune_cnn.training import state_from_bytes, state_to_bytes

_CHECKPOINT = re.compile(r"epoch_(\d+)\.pt")
KEPT_CHECKPOINTS = 2  # if the newest is damaged, the one before it serves


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

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None if there is none."""
        if self.is_local:
            try:
                return (self.local_path / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
        filesystem, path = self._remote()
        try:
            with filesystem.open_input_stream(f"{path}/{name}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all; the folder is made if need be."""
        if self.is_local:
            self.local_path.mkdir(parents=True, exist_ok=True)
            replace_file(self.local_path / name, content)
            return
        filesystem, path = self._remote()
        # An object appears when its upload is complete.
        with filesystem.open_output_stream(f"{path}/{name}") as stream:
            stream.write(content)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.is_local:
            (self.local_path / name).unlink(missing_ok=True)
            return
        filesystem, path = self._remote()
        if self.read(name) is not None:
            filesystem.delete_file(f"{path}/{name}")

    def names(self) -> list[str]:
        """The names of the files and folders in it, sorted; none if it does not exist."""
        if self.is_local:
            return sorted(p.name for p in self.local_path.iterdir()) if self.local_path.is_dir() else []
        from pyarrow.fs import FileSelector

        filesystem, path = self._remote()
        return sorted(info.base_name for info in filesystem.get_file_info(FileSelector(path, allow_not_found=True)))

    def _remote(self) -> tuple[Any, str]:
        from pyarrow.fs import FileSystem

        try:
            filesystem, path = FileSystem.from_uri(self.root)
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.root}: this storage cannot be used ({error}); check the URI") from error
        return filesystem, f"{path.rstrip('/')}/{self.inner}".rstrip("/")


class TrialFolder:
    """The files of one trial."""

    def __init__(self, folder: Folder, label: str) -> None:
        self.folder = folder
        self.label = label

    def checkpoints(self) -> list[str]:
        """The names of its checkpoints, the newest first."""
        return sorted((name for name in self.folder.names() if _CHECKPOINT.fullmatch(name)), reverse=True)

    def save_checkpoint(self, epoch: int, state: dict[str, Any]) -> None:
        """Add a checkpoint, and delete those that are too old."""
        self.folder.write(f"epoch_{epoch:04d}.pt", state_to_bytes(state))
        for name in self.checkpoints()[KEPT_CHECKPOINTS:]:
            self.folder.delete(name)

    def load_checkpoint(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest checkpoint that is whole, or None; and a warning for each damaged one."""
        warnings: list[str] = []
        for name in self.checkpoints():
            content = self.folder.read(name)
            if content is None:
                continue
            try:
                return state_from_bytes(content, f"{self.folder}/{name}"), warnings
            except ResultError as error:
                warnings.append(f"{error}; continuing from the one before")
        return None, warnings

    def finish(self, settings: Settings, results: FitResult, summary: dict[str, Any], best: dict[str, Any]) -> None:
        """Keep the outcome and the best weights, and nothing else of the training."""
        self.folder.write("best.pt", state_to_bytes(best))
        record = {"config": settings.to_json(), "results": results._asdict(), "trial": summary}
        self.folder.write("record.json", to_strict_json(record).encode())
        for name in [*self.checkpoints(), "error.txt"]:
            self.folder.delete(name)

    def record(self) -> tuple[Settings, FitResult, dict[str, Any]] | None:
        """Settings, results and facts of the finished trial; None if it is not finished.

        Raises:
            ResultError: The record is damaged.
        """
        content = self.folder.read("record.json")
        if content is None:
            return None
        place = f"{self.folder}/record.json"
        try:
            config, results, summary = parse_result(json.loads(content), place)
            return Settings.from_json(config), results, summary
        except (ValueError, RecursionError, ConfigError) as error:
            raise ResultError(f"{place}: damaged ({error}); delete it to run the trial again") from error

    def save_failure(self, failure: str, trace: str) -> None:
        """Keep why the trial failed: one line, and the traceback."""
        self.folder.write("error.txt", f"{failure}\n\n{trace}".encode())

    def failure(self) -> str | None:
        """Why the trial failed last, in one line, or None."""
        content = self.folder.read("error.txt")
        return None if content is None else content.decode(errors="replace").partition("\n")[0]


class SweepFolder:
    """The files of one sweep.

    Args:
        storage: Where sweeps lie: a path, or a URI that pyarrow knows.
        name: The sweep's name.
    """

    def __init__(self, storage: str, name: str) -> None:
        root = storage if urlsplit(storage).scheme and "://" in storage else str(Path(storage).expanduser().resolve())
        self.name = name
        self.folder = Folder(root, name)

    def __str__(self) -> str:
        return str(self.folder)

    @classmethod
    def find(cls, sweep: str, storage: str) -> "SweepFolder":
        """A sweep that exists: a path to its folder, or its name below `storage`.

        Raises:
            StorageError: There is none.
        """
        by_path = Path(sweep)
        candidates = [cls(str(by_path.absolute().parent), by_path.absolute().name), cls(storage, sweep)]
        for candidate in candidates:
            if candidate.folder.read("sweep.json") is not None:
                return candidate
        raise StorageError(f"{sweep}: no sweep here, and none of this name in {storage}; check the name, or --storage")

    def trial(self, settings: Settings) -> TrialFolder:
        """The folder of a trial."""
        label = f"{settings.label[:60]}_{settings.trial_id}"
        return TrialFolder(self.folder / "trials" / label, label)

    def save_experiments(self, experiments: dict[str, Settings]) -> None:
        """Keep what was asked for: names and settings."""
        content = {"experiments": {name: settings.to_json() for name, settings in experiments.items()}}
        self.folder.write("sweep.json", to_strict_json(content).encode())

    def experiments(self) -> dict[str, Settings]:
        """What was asked for last: names and settings.

        Raises:
            StorageError: The file is missing or damaged.
        """
        content = self.folder.read("sweep.json")
        if content is None:
            raise StorageError(f"{self}: no sweep was started here; check the name")
        try:
            experiments = json.loads(content)["experiments"]
            return {name: Settings.from_json(values) for name, values in experiments.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError) as error:
            raise StorageError(f"{self}/sweep.json: damaged ({error}); run the sweep's command again") from error
