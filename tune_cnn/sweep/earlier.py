"""Trainings that are there already, in this sweep or another one of the storage, and serve what is asked for now."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from tune_cnn.early_stopping import stop_reason, until_stop
from tune_cnn.errors import ResultError, StorageError
from tune_cnn.settings import Settings
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trial_folder import TrialFolder
from tune_cnn.training.state import course

_AT_ONCE = 16  # sweeps whose folders are looked into


class Earlier(NamedTuple):
    """An earlier training, in the sweep of that name, that a trial can reuse."""

    trial: TrialFolder
    sweep: str
    epoch: int  # how many of its epochs the trial reuses
    is_finished: bool = False  # the trial is the same, and finished: it is copied
    ends: bool = False  # the trial stops after that epoch, so that only the test set is left to evaluate


class _Shelf(NamedTuple):
    """An index of a sweep's trials: the names of their folders, and all known settings, grouped by `course`."""

    sweep: SweepFolder
    labels: frozenset[str]
    by_course: dict[str, list[Settings]]


def find_earlier(wanted: Iterable[Settings], folder: SweepFolder) -> dict[str, Earlier]:
    """Look for trainings that go further than what the sweep itself has of each trial.

    That is the same trial in another sweep, or one whose settings differ only in `epochs` and `early_stopping`. After
    --fresh, other sweeps are left alone, and so they are for trials without a seed, which are meant to differ.

    Returns:
        What was found, by trial id; a trial that is finished in the sweep needs nothing.
    """
    missing = [settings for settings in wanted if not folder.trial(settings).is_finished()]
    if not missing:
        return {}
    own = _shelf(folder)
    others = [] if folder.is_fresh else _other_shelves(folder)
    found = {}
    for settings in missing:
        behind = max(folder.trial(settings).checkpoints(), default=0)
        candidates = list(_candidates(settings, [own] if settings.seed is None else [own, *others]))
        best = max(candidates, key=lambda earlier: (earlier.is_finished, earlier.ends, earlier.epoch), default=None)
        if best is not None and (best.is_finished or best.ends or best.epoch > behind):
            found[settings.trial_id] = best
    return found


def take_over(wanted: Iterable[Settings], folder: SweepFolder) -> None:
    """Copy what `find_earlier` finds into the sweep's own folder, where it is continued as if it had begun there."""
    trials = {settings.trial_id: settings for settings in wanted}
    for trial_id, earlier in find_earlier(trials.values(), folder).items():
        files = ["best.pt", *earlier.trial.checkpoints().values()]
        if earlier.is_finished:  # the record comes last: the trial is finished when it is there
            files += [name for name in earlier.trial.folder.names() if name.startswith("events.")] + ["record.json"]
        folder.trial(trials[trial_id]).copy_from(earlier.trial, files)


def _other_shelves(folder: SweepFolder) -> list[_Shelf]:
    def find(name: str) -> _Shelf | None:
        with suppress(StorageError, OSError):  # another's sweep, whose damage is not the matter here
            sweep = SweepFolder(folder.storage.root, name)
            return _shelf(sweep) if sweep.folder.read("sweep.json") is not None else None
        return None

    names = [name for name in folder.storage.names() if name != folder.name]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [shelf for shelf in pool.map(find, names) if shelf is not None]


def _shelf(sweep: SweepFolder) -> _Shelf:
    by_course: dict[str, list[Settings]] = defaultdict(list)
    for settings in sweep.known_settings():
        by_course[_key(settings)].append(settings)
    return _Shelf(sweep, frozenset(sweep.trials.names()), by_course)


def _key(settings: Settings) -> str:
    return json.dumps(course(settings), sort_keys=True)


def _candidates(settings: Settings, shelves: Iterable[_Shelf]) -> Iterator[Earlier]:
    for shelf in shelves:
        known = {other.trial_id: other for other in (settings, *shelf.by_course.get(_key(settings), []))}
        for other in known.values():
            trial = shelf.sweep.trial(other)
            if trial.label in shelf.labels:
                with suppress(ResultError, StorageError, OSError):
                    if (earlier := _reusable(trial, shelf.sweep.name, settings)) is not None:
                        yield earlier


def _reusable(trial: TrialFolder, sweep: str, settings: Settings) -> Earlier | None:
    """How much of an earlier training, of the sweep of that name, a trial can reuse; None: nothing."""
    is_same = trial.trial_id == settings.trial_id
    record, epoch = trial.whole_record(), max(trial.checkpoints(), default=0)
    if record is not None and is_same and record[1].get("stop_reason") != "scheduler":
        return Earlier(trial, sweep, record[0].num_epochs, is_finished=True)
    if is_same and epoch:
        return Earlier(trial, sweep, epoch)
    found = record or trial.as_it_stands(trial.newest_state())
    if found is None or not epoch or (record is not None and epoch != record[0].num_epochs):
        return None
    history = found[0]
    cut = until_stop(history, settings.epochs, settings.early_stopping)
    if cut.best_epoch != history.best_epoch:  # a later epoch has overwritten the best weights
        return None
    ends = stop_reason(cut, settings.epochs, settings.early_stopping) is not None
    return Earlier(trial, sweep, cut.num_epochs, ends=ends)
