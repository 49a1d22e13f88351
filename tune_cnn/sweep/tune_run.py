"""One run of Tune, with the trials that are known and those that Optuna suggests meanwhile."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ray import tune
from ray.air._internal import usage
from ray.tune.search import Searcher

from tune_cnn import data, models
from tune_cnn.files import temporary_folder
from tune_cnn.settings import DataSettings, varied_keys
from tune_cnn.sweep.config.load import Experiment
from tune_cnn.sweep.earlier import find_earlier, take_over
from tune_cnn.sweep.plan import expected_work
from tune_cnn.sweep.resources import Request
from tune_cnn.sweep.schedulers import scheduler
from tune_cnn.sweep.study import Suggestions
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.tensorboard import overview
from tune_cnn.sweep.trackers import Guarded
from tune_cnn.sweep.trainable import CnnTrainable, TrialPlan, has_ended
from tune_cnn.sweep.watcher import Watcher

MAX_FAILURES = 3  # lost processes and nodes per trial; an error that repeats is final sooner


class Suggester(Searcher):  # type: ignore[misc]
    """A Tune searcher that returns the configs of `known` trials, then those from `suggest` until it returns None.

    `tell` is called when a trial has ended. The searcher cannot be saved: the sweep's folder has everything.
    """

    def __init__(
        self, known: list[dict[str, Any]], suggest: Callable[[], dict[str, Any] | None], tell: Callable[[], object]
    ) -> None:
        super().__init__(metric="best_validation_accuracy", mode="max")
        self._known, self._suggest, self._tell = known, suggest, tell

    def suggest(self, trial_id: str) -> Any:
        return self._known.pop(0) if self._known else self._suggest() or Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        self._tell()


def run_tune(
    todo: dict[str, Experiment],
    asked: dict[str, Request],
    images: dict[DataSettings, data.Images],
    folder: SweepFolder,
    watcher: Watcher,
    callbacks: Sequence[Any],
    tune_options: Mapping[str, Any],
    suggestions: Suggestions | None,
) -> None:
    """Run Tune until every trial has ended; the watcher records how.

    Suggested trials are added to `todo` and `asked`, by id; until then, `asked` has them by the experiment's name.
    """
    # Tune reads these when it starts: it then writes no log files, keeps our working directory and leaves Ctrl-C to us.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # failing trials report no metric
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the watcher reports what happens
    usage.tag_callbacks = lambda *_: False  # the original imports MLflow and W&B to count callbacks, for 1.5 s
    longest_first = sorted(todo, key=lambda trial_id: expected_work(todo[trial_id].settings), reverse=True)

    upcoming = {e.name: e for e in suggestions.left} if suggestions else {}
    left = [e.settings for e in upcoming.values()]
    possible = todo | upcoming
    plans = {key: TrialPlan(e.settings, *asked[key], e.scheduler is not None) for key, e in possible.items()}
    networks = models.sources(plan.settings for plan in plans.values())
    if left:
        models.adopt(networks)  # for suggested trials, even if the files change meanwhile
    sweep = [*folder.experiments().values(), *left]
    varied = varied_keys(settings.flat() for settings in sweep)
    trainable = tune.with_resources(
        tune.with_parameters(
            CnnTrainable, plans=plans, images=images, folder=folder, overview=overview(sweep), networks=networks
        ),
        lambda config: dict(zip(("cpu", "gpu"), asked[config.get("experiment", config["trial_id"])], strict=True)),
    )
    specs = [e.scheduler for e in possible.values() if e.scheduler]
    chosen: Any = scheduler(specs[0], sweep, folder) if specs else None

    def suggest() -> dict[str, Any] | None:
        while suggestions and (e := suggestions.next()) is not None:
            trial_id, trial = e.settings.trial_id, folder.trial(e.settings)
            start = find_earlier([e], folder).get(trial_id)
            take_over(start, trial)
            if trial_id not in todo and not trial.is_finished():
                todo[trial_id], asked[trial_id] = e, asked[e.name]
                watcher.add(e.settings, trial, start.epoch if start else 0)
                if chosen is not None:
                    chosen.folders[trial_id] = trial
                plan = {"experiment": e.name, "settings": json.dumps(e.settings.to_json())}
                return {**config(e, {*varied, *(e.search or {})}), **plan}
            watcher.progress.dropped(trial.label)
            suggestions.tell()
        return None

    def config(experiment: Experiment, keys: Iterable[str]) -> dict[str, Any]:
        # Besides the id, the hyperparameters, for loggers, plots and schedulers.
        values = experiment.settings.flat()
        return {"trial_id": experiment.settings.trial_id, **{key: values.get(key) for key in keys}}

    configs = {trial_id: config(todo[trial_id], varied) for trial_id in longest_first}
    search: dict[str, Any] = {}
    if suggestions:
        suggester = Suggester(list(configs.values()), suggest, suggestions.tell)
        space, search = {}, {"search_alg": suggester, "num_samples": len(configs) + len(suggestions.left)}
    else:
        space = {key: tune.sample_from(lambda spec, key=key: configs[spec.config.trial_id][key]) for key in varied}
        space["trial_id"] = tune.grid_search(longest_first)
    # Tune's own state is not needed: the sweep's folder says what is finished.
    with temporary_folder() as scratch:
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
                scheduler=chosen,
                **search,
                **tune_options,
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=str(scratch),
                stop=has_ended,
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[watcher, *map(Guarded, callbacks)],
                progress_reporter=tune.CLIReporter(),  # silent; Tune's default in a notebook clears the cell's output
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except tune.TuneError as error:  # has only the text of what a callback raised
            raise watcher.end or error from None


def _name(trial: Any) -> str:
    # At module level, so that it is pickled by name: Tune keeps its pickle with each trial, and with a closure over all
    # trials, that was 0.4 MB for each of a thousand.
    return str(trial.config["trial_id"])
