"""Every path and file name of a sweep, on a local disk or on S3.

    <storage>/<sweep>/
        sweep.json                  the experiments that were requested last
        lock.json                   who is running the sweep, while it runs
        trials/K32_L2_<trial id>/   (trials-2, trials-3, ... after --fresh)
            epoch_0007.pt           checkpoint after epoch 7: the two newest during training; later the last one, if
                                    more epochs could follow
            record.json             settings, results, facts; exists exactly when the trial is finished
            best.pt                 weights with the best validation accuracy
            error.txt               why it failed last
            stop.txt                after which epoch a scheduler ends it
            events.out.tfevents.*   for TensorBoard

Ray's own state is not kept: these files alone say what is finished, so a sweep can grow, shrink and resume.
"""

import difflib
import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from tune_cnn.errors import ConfigError, ResultError, StorageError
from tune_cnn.files import parse_json
from tune_cnn.result_files import to_strict_json
from tune_cnn.rules import name_problems
from tune_cnn.settings import Settings, parse_settings
from tune_cnn.sweep.config.search_space import distribution_fault
from tune_cnn.sweep.folder import Folder, path_or_uri
from tune_cnn.sweep.trial_folder import TrialFolder, fault_of
from tune_cnn.texts import tell

Search = Mapping[str, Mapping[str, Any]]
_GENERATION = re.compile(r"trials(?:-(\d+))?", re.ASCII)
_MOST_EXPERIMENTS = 100_000
_MOST_NAMED = 5


class SweepFolder:
    """The files of one sweep; `storage` is the folder of all sweeps: a path, or a URI that pyarrow supports."""

    def __init__(self, storage: str, name: str) -> None:
        self.name = name
        self.storage = Folder(path_or_uri(storage))
        self.folder = self.storage / name
        manifest = self._manifest()
        self.trials = self.folder / (manifest.get("trials") or _generation(max(self._newest(), 1)))
        self.is_fresh = manifest.get("fresh") is True  # after --fresh: no trials of other sweeps are reused

    def __str__(self) -> str:
        return str(self.folder)

    @classmethod
    def find(cls, sweep: str, storage: str) -> "SweepFolder":
        """An existing sweep, by its folder (path or URI) or its name in `storage`; StorageError if there is none."""
        if (found := cls.find_any(sweep, storage)) is not None:
            return found
        place, name = _candidates(sweep, storage)[-1]
        names: list[str] = []
        with suppress(StorageError):
            names = [found for found in Folder(place).names() if not found.startswith(".")]
        there = difflib.get_close_matches(name, names) or names[:_MOST_NAMED]
        remedy = f"there: {', '.join(there)}" if there else "run one first, such as: tune-cnn sweep quick"
        raise StorageError(
            f"{sweep}: no sweep here, and none of this name in {storage}; check the name, or the storage ({remedy})"
        )

    @classmethod
    def find_any(cls, sweep: str, storage: str) -> "SweepFolder | None":
        """Find an existing sweep as `find` does; None if there is no such sweep."""
        found = (cls(*candidate) for candidate in _candidates(sweep, storage))
        return next((one for one in found if one.folder.read("sweep.json") is not None), None)

    def trial(self, settings: Settings) -> TrialFolder:
        """The folder of a trial."""
        return TrialFolder(self.trials, settings)

    def start_over(self) -> None:
        """Begin a new, empty folder of trials (`trials-2`, ...): no trial of this or another sweep is reused."""
        before, self.is_fresh = self.trials, True
        self.trials = self.folder / _generation(self._newest() + 1)
        if before.names():
            tell(f"training everything in {self.trials}; what is in {before} stays there, and is not used", sys.stderr)

    def save_experiments(self, experiments: Mapping[str, Settings], searches: Mapping[str, Search] = {}) -> None:
        """Save the requested experiments, as settings by name, and the distributions from which a search drew them.

        The settings of earlier requests are kept too.
        """
        asked = {settings.trial_id for settings in experiments.values()}
        before = [settings.to_json() for settings in self.known_settings() if settings.trial_id not in asked]
        content = {
            "trials": PurePosixPath(self.trials.inner).name,
            "fresh": self.is_fresh,
            "experiments": {name: settings.to_json() for name, settings in experiments.items()},
            "searches": {name: search for name, search in searches.items() if name in experiments},
            "before": before,
        }
        self.folder.write("sweep.json", to_strict_json(content).encode())

    def experiments(self) -> dict[str, Settings]:
        """The experiments that were requested last, as settings by name; StorageError if missing or damaged."""
        manifest = self._manifest()
        if not manifest:
            raise StorageError(f"{self}/sweep.json: missing; run the sweep's command again")
        try:
            asked = manifest["experiments"]
            if len(asked) > _MOST_EXPERIMENTS:
                raise ConfigError("", [f"{len(asked):,} experiments; at most {_MOST_EXPERIMENTS:,} are read"])
            experiments = {name: _settings(json.dumps(values)) for name, values in asked.items()}
            if problems := [problem for name in experiments for problem in name_problems(name)]:  # as file names
                raise ConfigError("experiments", problems)
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise self._damaged(error) from error
        return experiments

    def earlier_experiments(self) -> dict[str, Settings]:
        """As `experiments`, but empty if there are none yet, or they cannot be read."""
        with suppress(StorageError):
            return self.experiments()
        return {}

    def searches(self) -> dict[str, Search]:
        """The distributions from which a search drew experiments, by their names."""
        searches = self._manifest().get("searches", {})
        usable = searches.items() if isinstance(searches, dict) else ()
        return {n: s for n, s in usable if isinstance(s, dict) and not any(map(distribution_fault, s.values()))}

    def known_settings(self) -> list[Settings]:
        """The settings of all trials that were ever requested; empty if they cannot be read."""
        try:
            manifest = self._manifest()
            known = [*manifest["experiments"].values(), *manifest.get("before", [])][:_MOST_EXPERIMENTS]
            trials = [_settings(json.dumps(values)) for values in known]
        except (StorageError, KeyError, TypeError, AttributeError, ConfigError):
            return []
        return list({settings.trial_id: settings for settings in trials}.values())

    def _manifest(self) -> dict[str, Any]:
        try:
            content = self.folder.read("sweep.json")
            manifest: dict[str, Any] = {} if content is None else parse_json(content)
            if content is not None and not _GENERATION.fullmatch(manifest["trials"]):
                raise ValueError("it names no folder of trials")
        except (ValueError, KeyError, TypeError, ResultError) as error:
            raise self._damaged(error) from error
        return manifest

    def _newest(self) -> int:
        """The number of the newest folder of trials; 0 if there is none."""
        generations = [match for name in self.folder.names() if (match := _GENERATION.fullmatch(name))]
        return max((int(match[1] or 1) for match in generations), default=0)

    def _damaged(self, error: Exception) -> StorageError:
        place = f"{self}/sweep.json"
        return StorageError(f"{place}: damaged ({fault_of(error, place)}); delete it and run the sweep's command again")


@cache
def _settings(text: str) -> Settings:
    return parse_settings(json.loads(text))  # takes a millisecond, and a search saves all its settings again and again


def _generation(number: int) -> str:
    return "trials" if number == 1 else f"trials-{number}"


def _candidates(sweep: str, storage: str) -> list[tuple[str, str]]:
    """The storages and names under which a sweep may be found."""
    place = path_or_uri(sweep)
    if "://" in place:
        base, _, query = place.partition("?")
        parent, _, name = base.rstrip("/").rpartition("/")
        return [(f"{parent}?{query}" if query else parent, name)]
    return [(os.path.dirname(place), os.path.basename(place)), (storage, sweep)]
