"""Optuna's suggestions: the studies of a sweep, in its folder, and the experiments made from them.

A sweep has a study for each cell of its grid. `study.db` is an SQLite file, which Optuna's own tools can read. A
suggestion is saved there before its trial begins, so a sweep that was killed continues with the same settings.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tune_cnn import models
from tune_cnn.errors import ConfigError, StorageError
from tune_cnn.files import temporary_folder
from tune_cnn.settings import parse_settings, with_arguments_apart, with_arguments_together
from tune_cnn.sweep.config.load import Experiment, unfit
from tune_cnn.sweep.config.search_space import rounded
from tune_cnn.sweep.sweep_folder import SweepFolder

_FILE = "study.db"
_NAME = "experiment"  # a user attribute of Optuna's trials
_MOST_TRIES = 100  # to get settings that can be trained


class Studies:
    """The studies of a sweep; see `open_studies`."""

    def __init__(self, folder: SweepFolder, path: Path, storage: Any) -> None:
        self._folder, self._path, self._storage = folder, path, storage
        self._opened: dict[str, Any] = {}  # studies by name

    def suggest(self, experiment: Experiment) -> Experiment:
        """Suggest settings for an experiment that has none yet, and save them in the folder.

        After 100 suggestions that cannot be trained, it raises a ConfigError.
        """
        import optuna

        study, space = self._study(experiment), _space(experiment.search or {})
        for _ in range(_MOST_TRIES):
            trial = study.ask(space)
            suggested = _with(experiment, trial.params)
            problems = [fault for _, fault in unfit([suggested])]
            if not problems:
                trial.set_user_attr(_NAME, experiment.name)
                self._publish()
                return suggested
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        raise ConfigError(experiment.name, [f"{problem}; or narrow the search" for problem in problems])

    def tell(self, experiments: Iterable[Experiment]) -> None:
        """Tell the studies the results of the experiments that are finished."""
        import optuna

        of_studies = [e for e in experiments if e.study and not e.is_open]
        suggested = self.suggested(of_studies)
        for experiment in of_studies:
            trial = suggested.get(experiment.name)
            if trial is None or trial.state != optuna.trial.TrialState.RUNNING:
                continue
            if record := self._folder.trial(experiment.settings).whole_record():
                self._study(experiment).tell(trial.number, record[0].best_accuracy)
                self._publish()

    def suggested(self, experiments: Iterable[Experiment]) -> dict[str, Any]:
        """Optuna's trials that the studies of some experiments have suggested so far, by the experiments' names."""
        studies = {experiment.study: self._study(experiment) for experiment in experiments}
        trials = [trial for study in studies.values() for trial in study.get_trials(deepcopy=False)]
        return {trial.user_attrs[_NAME]: trial for trial in trials if _NAME in trial.user_attrs}

    def _study(self, experiment: Experiment) -> Any:
        import optuna

        assert experiment.study is not None
        name, seed = experiment.study
        if name not in self._opened:
            study = optuna.create_study(
                storage=self._storage, study_name=name, direction="maximize", load_if_exists=True
            )
            # With the same seed, the sampler of a resumed study would repeat its first suggestions.
            mixed = np.random.SeedSequence([seed, int(name, 16), len(study.get_trials(deepcopy=False))])
            study.sampler = optuna.samplers.TPESampler(seed=int(mixed.generate_state(1)[0]))
            self._opened[name] = study
        return self._opened[name]

    def _publish(self) -> None:
        self._folder.folder.write(_FILE, self._path.read_bytes())


@contextmanager
def open_studies(folder: SweepFolder) -> Iterator[Studies]:
    """Open the studies of a sweep on a local copy, written back after every change: SQLite cannot work on S3."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with temporary_folder() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's, about experimental features
        path = scratch / _FILE
        if (content := folder.folder.read(_FILE)) is not None:
            path.write_bytes(content)
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        except Exception as error:
            raise StorageError(f"{folder}/{_FILE}: damaged ({error}); delete it to begin a new study") from error
        try:
            yield Studies(folder, path, storage)
        finally:
            storage.engine.dispose()


def settled(experiments: Sequence[Experiment], folder: SweepFolder) -> list[Experiment]:
    """The experiments, with their settings where Optuna has suggested them already."""
    upcoming = [experiment for experiment in experiments if experiment.is_open]
    if not upcoming:
        return list(experiments)
    with open_studies(folder) as studies:
        suggested = studies.suggested(upcoming)
    return [_with(e, suggested[e.name].params) if e.is_open and e.name in suggested else e for e in experiments]


@dataclass
class Suggestions:
    """The suggestions that are left to make in a sweep."""

    studies: Studies
    experiments: list[Experiment]  # with known settings; each suggestion is added
    left: list[Experiment]  # without settings yet
    save: Callable[[], object]  # called after each suggestion, to keep the experiments

    def next(self) -> Experiment | None:
        """The next suggestion; None: none is left."""
        if not self.left:
            return None
        self.experiments.append(self.studies.suggest(self.left.pop(0)))
        self.save()
        return self.experiments[-1]

    def tell(self) -> None:
        """Tell the studies the results of finished experiments."""
        self.studies.tell(self.experiments)


def _space(search: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Optuna's distributions, converted by Tune; choices are stored as JSON, since they may be lists."""
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    domains = {}
    for key, distribution in search.items():
        ((name, arguments),) = distribution.items()
        is_choice = name == "choice"
        domains[key] = tune.choice([*map(json.dumps, arguments)]) if is_choice else getattr(tune, name)(*arguments)
    return dict(OptunaSearch.convert_search_space(domains))


def _with(experiment: Experiment, params: Mapping[str, Any]) -> Experiment:
    values = {key: json.loads(value) if isinstance(value, str) else rounded(value) for key, value in params.items()}
    before = experiment.settings
    if "bs_train" in values and before.bs_test == max(before.bs_train // 4, 1):
        values["bs_test"] = None  # derived from `bs_train`
    if "model" in values:
        values["model_fingerprint"] = None
    changed = with_arguments_together(with_arguments_apart(before.to_json()) | values)
    return replace(experiment, settings=models.resolve(parse_settings(changed, experiment.name)), is_open=False)
