"""Runs a sweep: trains what is missing, and shows how it gets on."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from tune_cnn import data, models
from tune_cnn.files import temporary_folder
from tune_cnn.settings import DataSettings, varied_keys
from tune_cnn.sweep.cluster import ClusterOptions, check_reachable, connected, own_node
from tune_cnn.sweep.config.search_space import Experiment, distinct_trials
from tune_cnn.sweep.earlier import take_over
from tune_cnn.sweep.live_table import Progress
from tune_cnn.sweep.plan import expected_work
from tune_cnn.sweep.resources import GpuMemory, Node, Request, check_feasible, requests
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.waiting import waiting

MAX_FAILURES = 3  # lost processes and nodes per trial; an error that repeats is final sooner


def run_sweep(
    experiments: Sequence[Experiment],
    folder: SweepFolder,
    cluster: ClusterOptions,
    keep_others: bool = False,
    check_lock: Callable[[], object] = lambda: None,
    callbacks: Sequence[Any] = (),
    tune_options: Mapping[str, Any] = {},
) -> dict[str, str]:
    """Train every trial that is not finished yet, several at once; continue those that were interrupted.

    Args:
        experiments: What was asked for; those with equal settings are trained once.
        folder: Where the sweep lies; the caller holds its lock.
        cluster: The Ray to run on.
        keep_others: The folder's earlier experiments of other names stay part of the sweep, though they are not run.
        check_lock: Raises StorageError if another process may be running the sweep now; asked all the time.
        callbacks: Further callbacks for Tune.
        tune_options: Further arguments of `tune.TuneConfig`, such as `time_budget_s`.

    Returns:
        Why trials failed for good, in one line each, by trial id. What is finished is in the folder.

    Raises:
        DataError: The images cannot be found or read.
        ResourceError: A trial asks for what no node has.
        StorageError: The folder fails, or a node does not reach it, or the lock is lost; what was finished is kept.
        KeyboardInterrupt: On Ctrl-C or SIGTERM; every finished epoch is in the folder.
    """
    trials = distinct_trials(experiments)
    take_over((same_trial[0].settings for same_trial in trials.values()), folder)
    todo = {}
    for trial_id, same_trial in trials.items():
        trial = folder.trial(same_trial[0].settings)
        if same_trial[0].scheduler is None and trial.is_cut_short():
            trial.reopen()
        if (record := trial.whole_record()) is not None:
            trial.forget_training(record[0].num_epochs)  # if its process was killed before it could
        else:
            todo[trial_id] = same_trial[0]
    node = own_node(cluster)
    if todo and node is not None:
        check_feasible(list(requests(todo, [node], len(trials)).values()), [node])  # before the images are loaded
    others = folder.earlier_experiments() if keep_others else {}
    searches = {experiment.name: experiment.search for experiment in experiments if experiment.search}
    folder.save_experiments(others | {e.name: e.settings for e in experiments}, folder.searches() | searches)
    if not todo:
        return {}

    with _terminated_like_ctrl_c():
        sources = {e.settings.data for e in todo.values()}
        data_bytes = sum(map(data.nbytes, sources))
        loading = _load(sources)
        # Once more, since Ray on its start takes SIGTERM for a crash, and aborts three seconds after it.
        with connected(cluster, data_bytes) as nodes, _terminated_like_ctrl_c():
            asked = requests(todo, nodes, len(trials), _gpu_memory(todo, nodes, cluster))
            check_feasible(list(asked.values()), nodes)
            if cluster.address is not None:
                check_reachable(folder.folder)
            with waiting("loading images", at_once=not loading.done()):
                images = loading.result()
            from tune_cnn.sweep.epoch_progress import read

            folders = {(trial := folder.trial(e.settings)).label: trial for e in todo.values()}
            labels = {folder.trial(e.settings).label: e.settings for e in todo.values()}
            with Progress(labels, len(trials) - len(todo), within_epoch=lambda label: read(folders[label])) as progress:
                options = {"callbacks": callbacks, "tune_options": tune_options}
                return _train(todo, asked, images, folder, progress, check_lock, options)


def _load(sources: Iterable[DataSettings]) -> Future[dict[DataSettings, data.Images]]:
    """Load images in a thread, since the start of Ray is two seconds of waiting; an interrupt does not wait for it."""
    thread = ThreadPoolExecutor(1, "loader")
    loading = thread.submit(lambda: {source: data.load(source, progress=True) for source in sources})
    thread.shutdown(wait=False)
    return loading


def _gpu_memory(todo: Mapping[str, Experiment], nodes: Sequence[Node], cluster: ClusterOptions) -> dict[str, GpuMemory]:
    """What each trial needs, told by a machine that has a GPU; nothing if no share depends on it, or there is none."""
    trials = {trial_id: e.settings for trial_id, e in todo.items() if e.resources.gpus_per_trial == "auto"}
    only_in_name = cluster.address is None and not torch.cuda.is_available()
    if not trials or only_in_name or not any(node.gpus for node in nodes):
        return {}
    import ray

    from tune_cnn.sweep.pace import measure_gpu_memory

    try:
        found: dict[str, GpuMemory] = ray.get(
            ray.remote(num_gpus=1, max_retries=0)(measure_gpu_memory).remote(trials, models.sources(trials.values()))
        )
    except ray.exceptions.RayError:  # the shares are then told from the number of trials alone
        return {}
    return found


def _train(
    todo: dict[str, Experiment],
    asked: dict[str, Request],
    images: dict[DataSettings, data.Images],
    folder: SweepFolder,
    progress: Progress,
    check_lock: Callable[[], object],
    options: Mapping[str, Any],
) -> dict[str, str]:
    """Run Tune until every trial is finished or has failed for good; the failures by trial id."""
    from tune_cnn.sweep.watcher import Watcher

    failures: dict[str, str] = {}
    while todo:
        watcher = Watcher({trial_id: e.settings for trial_id, e in todo.items()}, folder, progress, check_lock)
        _run_tune(todo, asked, images, folder, watcher, **options)
        failures |= watcher.failures
        # A trial that a part of a GPU was too small for gets twice as much, up to a whole one.
        asked = {
            trial_id: asked[trial_id].with_twice_the_gpu()
            for trial_id in watcher.out_of_memory
            if 0 < asked[trial_id].gpus < 1
        }
        todo = {trial_id: todo[trial_id] for trial_id in asked}
        for trial_id in todo:
            del failures[trial_id]
    return failures


def _run_tune(
    todo: dict[str, Experiment],
    asked: dict[str, Request],
    images: dict[DataSettings, data.Images],
    folder: SweepFolder,
    watcher: Any,
    callbacks: Sequence[Any],
    tune_options: Mapping[str, Any],
) -> None:
    # Tune reads these when it starts: no log files and no working directory beside ours, and Ctrl-C as usual.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a trial that fails has none
    from ray import tune

    from tune_cnn.sweep.schedulers import scheduler
    from tune_cnn.sweep.tensorboard import overview
    from tune_cnn.sweep.trainable import CnnTrainable, TrialPlan, TrialStopper

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the watcher tells what happens
    plans = {trial_id: TrialPlan(e.settings, *asked[trial_id], e.scheduler is not None) for trial_id, e in todo.items()}
    longest_first = sorted(todo, key=lambda trial_id: expected_work(todo[trial_id].settings), reverse=True)

    sweep = folder.experiments().values()
    shown = overview(sweep)
    varied = varied_keys(settings.flat() for settings in sweep)
    hyperparameters = {trial_id: e.settings.flat() for trial_id, e in todo.items()}
    trainable = tune.with_resources(
        tune.with_parameters(
            CnnTrainable,
            plans=plans,
            images=images,
            folder=folder,
            overview=shown,
            networks=models.sources(plan.settings for plan in plans.values()),
        ),
        lambda config: {"cpu": asked[config["trial_id"]].cpus, "gpu": asked[config["trial_id"]].gpus},
    )
    specs = [experiment.scheduler for experiment in todo.values() if experiment.scheduler]
    # What Tune itself wants to remember is not needed: the sweep's folder says what is finished.
    with temporary_folder() as scratch:
        tuner = tune.Tuner(
            trainable,
            # Beside the id, each trial's config has its hyperparameters, for whoever logs, plots or schedules trials.
            param_space={
                "trial_id": tune.grid_search(longest_first),
                **{
                    key: tune.sample_from(lambda spec, key=key: hyperparameters[spec.config.trial_id].get(key))
                    for key in varied
                },
            },
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
                scheduler=scheduler(specs[0], sweep, folder) if specs else None,
                **tune_options,
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=str(scratch),
                stop=TrialStopper(),
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[watcher, *callbacks],
                progress_reporter=tune.CLIReporter(),  # silent; in a notebook, Tune's own clears the cell's output
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except tune.TuneError as error:  # what a callback raises comes out as its text
            raise watcher.end or error from None


def _name(trial: Any) -> str:
    # A function of this module, which is pickled by name: Tune keeps its pickle with each trial, and a closure over all
    # trials made that 0.4 MB for each of a thousand.
    return str(trial.config["trial_id"])


@contextmanager
def _terminated_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, and the end of the terminal, end the sweep as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores the end of the terminal
                    restore: Callable[..., Any] = signal.signal
                    stack.callback(restore, number, signal.signal(number, interrupt))
        yield
