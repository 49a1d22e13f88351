"""Finds trainings that the trials of a sweep can reuse: its own earlier ones, and those of other sweeps."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from tune_cnn.early_stopping import until_stop
from tune_cnn.errors import ResultError, StorageError
from tune_cnn.settings import Settings
from tune_cnn.sweep.config.load import Experiment
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trial_folder import TrialFolder
from tune_cnn.training.state import course

_AT_ONCE = 16  # sweeps whose folders are read in parallel


class Earlier(NamedTuple):
    """An earlier training, in the sweep of that name, from which a trial starts."""

    trial: TrialFolder
    sweep: str
    epoch: int  # number of epochs that the trial takes over
    is_own: bool = False  # the trial itself, in this sweep; any other training is copied
    is_finished: bool = False  # the trial needs no training
    is_cut_short: bool = False  # it has a record, as a scheduler stopped it, but is to be continued now


class _Shelf:
    """Index of a sweep's trials: the names of their folders, and all known settings, grouped by `course`."""

    def __init__(self, sweep: SweepFolder) -> None:
        self.sweep, self.labels = sweep, set(sweep.trials.names())
        self.by_course: dict[str, list[Settings]] = defaultdict(list)
        for settings in sweep.known_settings():
            self.by_course[_key(settings)].append(settings)


def find_earlier(wanted: Iterable[Experiment], folder: SweepFolder) -> dict[str, Earlier]:
    """Find the training that gets each trial furthest, by trial id: its own, or another that it can start from.

    The other is the same trial in another sweep, or one whose settings differ only in `epochs` and `early_stopping`.
    Other sweeps are ignored after --fresh, and for trials without a seed, which are meant to differ.
    """
    trials = {experiment.settings.trial_id: experiment for experiment in wanted}
    shelf = _Shelf(folder)
    candidates = {trial_id: [*_candidates(e, shelf, is_own=True)] for trial_id, e in trials.items()}
    missing = {t for t in trials if not any(e.is_finished or e.is_cut_short for e in candidates[t])}
    missing -= {trial_id for trial_id, e in trials.items() if e.settings.seed is None}
    for other in _other_shelves(folder) if missing and not folder.is_fresh else ():
        for trial_id in missing:
            candidates[trial_id] += _candidates(trials[trial_id], other)
    return {
        trial_id: max(several, key=lambda e: (e.is_finished or e.is_cut_short, e.epoch))
        for trial_id, several in candidates.items()
        if several
    }


def take_over(earlier: Earlier | None, trial: TrialFolder) -> None:
    """Copy an earlier training into a trial's folder, to be continued as if it had begun there."""
    if earlier is None or earlier.is_own or trial.is_finished():
        return
    files = ["best.pt", *earlier.trial.checkpoints().values()]
    if earlier.is_finished:  # the record last: once it exists, the trial counts as finished
        files += [name for name in earlier.trial.folder.names() if name.startswith("events.")] + ["record.json"]
    trial.copy_from(earlier.trial, files)


def _other_shelves(folder: SweepFolder) -> list[_Shelf]:
    def find(name: str) -> _Shelf | None:
        with suppress(StorageError, OSError):  # a damaged sweep of someone else is skipped
            sweep = SweepFolder(folder.storage.root, name)
            return _Shelf(sweep) if sweep.folder.read("sweep.json") is not None else None
        return None

    names = [name for name in folder.storage.names() if name != folder.name]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [shelf for shelf in pool.map(find, names) if shelf is not None]


def _key(settings: Settings) -> str:
    return json.dumps(course(settings), sort_keys=True)


def _candidates(experiment: Experiment, shelf: _Shelf, is_own: bool = False) -> Iterator[Earlier]:
    settings = experiment.settings
    known = {other.trial_id: other for other in (settings, *shelf.by_course.get(_key(settings), []))}
    for trial in map(shelf.sweep.trial, known.values()):
        if trial.label in shelf.labels:
            with suppress(*(() if is_own else (ResultError, StorageError, OSError))):
                if (earlier := _reusable(trial, shelf.sweep.name, experiment, is_own)) is not None:
                    yield earlier


def _reusable(trial: TrialFolder, sweep: str, experiment: Experiment, is_own: bool) -> Earlier | None:
    """What a trial can reuse of an earlier training in the sweep of that name; None: nothing."""
    settings = experiment.settings
    is_same = trial.trial_id == settings.trial_id
    is_own = is_own and is_same
    record = trial.whole_record()
    is_cut_short = record is not None and record[1].get("stop_reason") == "scheduler"
    if record is not None and is_same and (not is_cut_short or (is_own and experiment.scheduler)):
        return Earlier(trial, sweep, record[0].num_epochs, is_own, is_finished=True)
    epoch = max(trial.checkpoints(), default=0)
    if is_same and (epoch or (is_own and is_cut_short)):
        return Earlier(trial, sweep, epoch, is_own, is_cut_short=is_own and is_cut_short)
    results = record or trial.as_it_stands(trial.newest_state())
    if results is None or not epoch or (record is not None and epoch != record[0].num_epochs):
        return None
    history = results[0]
    cut = until_stop(history, settings.epochs, settings.early_stopping)
    if cut.best_epoch != history.best_epoch:  # a later epoch has overwritten the best weights
        return None
    return Earlier(trial, sweep, cut.num_epochs)
