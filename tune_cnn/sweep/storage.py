"""Every path and file name of a sweep, on a local disk or on S3.

    <storage>/<sweep>/
        sweep.json                  the experiments that were asked for last
        lock.json                   who is running the sweep, while it runs
        trials/K32_L2_<trial id>/   (trials-2, trials-3, ... after --fresh)
            epoch_0007.pt           where the training continues: the two newest, until it ends
            record.json             settings, results, facts: there exactly when the trial is finished
            best.pt                 its weights with the best validation accuracy
            error.txt               why it failed last
            events.out.tfevents.*   for TensorBoard

Ray's own state is not kept: what is finished is known from these files alone, so a sweep can grow, shrink and resume.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from tune_cnn.errors import ConfigError, ResultError, StorageError
from tune_cnn.files import BESIDE_SUFFIX, MOST_BYTES, parse_json
from tune_cnn.models import cost
from tune_cnn.result_files import parse_result, to_strict_json
from tune_cnn.rules import name_problems
from tune_cnn.settings import Settings
from tune_cnn.sweep.folder import Folder
from tune_cnn.train_results import FitResult
from tune_cnn.training.checkpoints import state_from_bytes, state_to_bytes

_CHECKPOINT = re.compile(r"epoch_(\d+)\.pt", re.ASCII)
_GENERATION = re.compile(r"trials(?:-(\d+))?", re.ASCII)
_MOST_EXPERIMENTS = 100_000
_MOST_CHARACTERS = 1000  # of a failure
KEPT_CHECKPOINTS = 2  # if the newest is damaged, the one before it serves


def epoch_of(checkpoint: str) -> int:
    """The number of epochs that a checkpoint has behind it."""
    match = _CHECKPOINT.fullmatch(checkpoint)
    assert match
    return int(match[1])


class TrialFolder:
    """The files of one trial."""

    def __init__(self, trials: Folder, settings: Settings) -> None:
        self._settings = settings
        self.trial_id = settings.trial_id
        self.label = f"{settings.label[:60]}_{self.trial_id}"
        self.folder = trials / self.label

    def checkpoints(self) -> list[str]:
        """The names of its checkpoints, the newest first."""
        found = [name for name in self.folder.names() if _CHECKPOINT.fullmatch(name)]
        return sorted(found, key=epoch_of, reverse=True)

    def save_checkpoint(self, epoch: int, state: dict[str, Any]) -> None:
        """Add a checkpoint, and delete those that are too old, and a failure that has been overcome."""
        self.folder.write(f"epoch_{epoch:04d}.pt", state_to_bytes(state))
        # Those of later epochs were damaged: otherwise the training would have continued from them.
        names = self.checkpoints()
        later = [name for name in names if epoch_of(name) > epoch]
        for name in [*later, *names[len(later) + KEPT_CHECKPOINTS :], "error.txt"]:
            self.folder.delete(name)

    def load_checkpoint(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest checkpoint that is whole, or None; and a warning for each damaged one.

        Only the one who trains the trial may ask: what a killed predecessor left half written is deleted.
        """
        warnings: list[str] = []
        for name in self.folder.names():
            if name.endswith(BESIDE_SUFFIX):
                self.folder.delete(name)
        # Weights, two moments, an average and the best weights take 20 bytes a weight.
        most = MOST_BYTES + 40 * cost(self._settings).parameters
        for name in self.checkpoints():
            try:
                content = self.folder.read(name, most)
                if content is None:
                    continue
                return state_from_bytes(content, f"{self.folder}/{name}"), warnings
            except ResultError:
                warnings.append(f"{self.folder}/{name}: damaged; the training continues from what was before it")
        return None, warnings

    def finish(self, settings: Settings, results: FitResult, summary: dict[str, Any], best: dict[str, Any]) -> None:
        """Keep the outcome and the best weights, and nothing else of the training."""
        self.folder.write("best.pt", state_to_bytes(best))
        record = {"config": settings.to_json(), "results": results._asdict(), "trial": summary}
        self.folder.write("record.json", to_strict_json(record).encode())
        self.forget_training()

    def forget_training(self) -> None:
        """Delete what only an unfinished trial needs."""
        for name in self.folder.names():
            if _CHECKPOINT.fullmatch(name) or name == "error.txt" or name.endswith(BESIDE_SUFFIX):
                self.folder.delete(name)

    def record(self) -> tuple[FitResult, dict[str, Any]] | None:
        """Results and facts of the finished trial; None if it is not finished.

        Raises:
            ResultError: The record is damaged, or that of another trial.
        """
        place = f"{self.folder}/record.json"
        try:
            content = self.folder.read("record.json")
            if content is None:
                return None
            config, results, summary = parse_result(parse_json(content), place)
            found = Settings.from_json(config).trial_id
        except (ValueError, ConfigError, ResultError) as error:
            fault = _fault(error, place)
            raise ResultError(f"{place}: damaged ({fault}); the sweep's command runs the trial again") from error
        if found != self.trial_id:
            raise ResultError(f"{place}: it is that of trial {found}; the sweep's command runs the trial again")
        return results, summary

    def is_finished(self) -> bool:
        """Whether there is a record, and it is whole."""
        try:
            return self.record() is not None
        except ResultError:
            return False

    def save_failure(self, failure: str, trace: str) -> None:
        """Keep why the trial failed: one line, and the traceback."""
        self.folder.write("error.txt", f"{failure}\n\n{trace}".encode())

    def failure(self) -> str | None:
        """Why the trial failed last, in one line, or None."""
        try:
            content = self.folder.read("error.txt")
        except ResultError as error:
            return str(error)
        return None if content is None else content.decode(errors="replace").partition("\n")[0][:_MOST_CHARACTERS]


class SweepFolder:
    """The files of one sweep.

    Args:
        storage: Where sweeps lie: a path, or a URI that pyarrow knows.
        name: The sweep's name.
    """

    def __init__(self, storage: str, name: str) -> None:
        self.name = name
        storage = storage.removeprefix("file://")
        self.folder = Folder(storage if "://" in storage else os.path.abspath(os.path.expanduser(storage)), name)
        self.trials = self.folder / (self._manifest().get("trials") or _generation(max(self._newest(), 1)))

    def __str__(self) -> str:
        return str(self.folder)

    @classmethod
    def find(cls, sweep: str, storage: str) -> "SweepFolder":
        """A sweep that exists: its folder as a path or a URI, or its name below `storage`.

        Raises:
            StorageError: There is none.
        """
        sweep = sweep.removeprefix("file://")
        if "://" in sweep:
            base, _, query = sweep.partition("?")
            parent, _, name = base.rstrip("/").rpartition("/")
            candidates = [(f"{parent}?{query}" if query else parent, name)]
        else:
            path = Path(os.path.abspath(os.path.expanduser(sweep)))
            candidates = [(str(path.parent), path.name), (storage, sweep)]
        for candidate in candidates:
            found = cls(*candidate)
            if found.folder.read("sweep.json") is not None:
                return found
        raise StorageError(f"{sweep}: no sweep here, and none of this name in {storage}; check the name, or --storage")

    def trial(self, settings: Settings) -> TrialFolder:
        """The folder of a trial."""
        return TrialFolder(self.trials, settings)

    def start_over(self) -> None:
        """Leave all trials where they are, and begin a new folder of trials beside them."""
        self.trials = self.folder / _generation(self._newest() + 1)

    def save_experiments(self, experiments: dict[str, Settings]) -> None:
        """Keep what was asked for: names and settings."""
        content = {
            "trials": PurePosixPath(self.trials.inner).name,
            "experiments": {name: settings.to_json() for name, settings in experiments.items()},
        }
        self.folder.write("sweep.json", to_strict_json(content).encode())

    def experiments(self) -> dict[str, Settings]:
        """What was asked for last: names and settings.

        Raises:
            StorageError: The file is missing or damaged.
        """
        try:
            asked = self._manifest()["experiments"]
            if len(asked) > _MOST_EXPERIMENTS:
                raise ConfigError("", [f"{len(asked):,} experiments; at most {_MOST_EXPERIMENTS:,} are read"])
            experiments = {name: Settings.from_json(values) for name, values in asked.items()}
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise self._damaged(error) from error
        # They become file names.
        if problems := [problem for name in experiments for problem in name_problems(name)]:
            raise self._damaged(ConfigError("experiments", problems))
        return experiments

    def earlier_experiments(self) -> dict[str, Settings]:
        """As `experiments`; none where nothing was asked for yet, or what was cannot be read."""
        try:
            return self.experiments()
        except StorageError:
            return {}

    def _manifest(self) -> dict[str, Any]:
        try:
            content = self.folder.read("sweep.json")
            if content is None:
                return {}
            manifest = parse_json(content)
            if not (isinstance(manifest, dict) and _GENERATION.fullmatch(manifest["trials"])):
                raise ValueError("it names no folder of trials")
        except (ValueError, KeyError, TypeError, ResultError) as error:
            raise self._damaged(error) from error
        return manifest

    def _newest(self) -> int:
        """The number of the newest folder of trials; 0: there is none."""
        found = [match for name in self.folder.names() if (match := _GENERATION.fullmatch(name))]
        return max((int(match[1] or 1) for match in found), default=0)

    def _damaged(self, error: Exception) -> StorageError:
        place = f"{self}/sweep.json"
        return StorageError(f"{place}: damaged ({_fault(error, place)}); delete it and run the sweep's command again")


def _generation(number: int) -> str:
    return "trials" if number == 1 else f"trials-{number}"


def _fault(error: Exception, place: str) -> str:
    """What is wrong with a file, in one line."""
    if isinstance(error, ConfigError):
        return "; ".join(error.problems[:3])
    if isinstance(error, ResultError):
        return str(error).removeprefix(f"{place}: ").partition(";")[0]
    if isinstance(error, KeyError | TypeError | AttributeError):
        return "a part is missing, or not what it should be"
    return str(error)
