"""Runs a sweep: trains what is missing, and shows how it gets on."""

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tune_cnn import data
from tune_cnn.errors import StorageError
from tune_cnn.models import cost
from tune_cnn.settings import DataSettings
from tune_cnn.sweep.cluster import ClusterOptions, check_reachable, connected, own_node
from tune_cnn.sweep.progress import Progress
from tune_cnn.sweep.resources import Node, Request, check_feasible, gpu_share
from tune_cnn.sweep.search_space import Experiment, distinct_trials
from tune_cnn.sweep.storage import SweepFolder

MAX_FAILURES = 3  # lost processes and nodes per trial; an error that repeats is final sooner


def run_sweep(experiments: Sequence[Experiment], folder: SweepFolder, cluster: ClusterOptions) -> dict[str, str]:
    """Train every trial that is not finished yet, several at once; continue those that were interrupted.

    Args:
        experiments: What was asked for; those with equal settings are trained once.
        folder: Where the sweep lies; the caller holds its lock.
        cluster: The Ray to run on.

    Returns:
        Why trials failed for good, in one line each, by trial id. What is finished is in the folder.

    Raises:
        DataError: The images cannot be found or read.
        ResourceError: A trial asks for what no node has.
        StorageError: A node does not reach the folder, or it is full; what was finished is kept.
        KeyboardInterrupt: On Ctrl-C or SIGTERM; every finished epoch is in the folder.
    """
    trials = distinct_trials(experiments)
    todo = {}
    for trial_id, twins in trials.items():
        if (trial := folder.trial(twins[0].settings)).is_finished():
            trial.forget_training()  # if its process was killed before it could
        else:
            todo[trial_id] = twins[0]
    node = own_node(cluster)
    if todo and node is not None:
        check_feasible(list(_requests(todo, [node]).values()), [node])  # before the images are loaded
    folder.save_experiments({experiment.name: experiment.settings for experiment in experiments})
    if not todo:
        return {}

    with _terminated_like_ctrl_c():
        images = {source: data.load(source, progress=True) for source in {e.settings.data for e in todo.values()}}
        # Once more, since Ray on its start takes SIGTERM for a crash, and aborts three seconds after it.
        with connected(cluster, sum(part.nbytes for part in images.values())) as nodes, _terminated_like_ctrl_c():
            requests = _requests(todo, nodes)
            check_feasible(list(requests.values()), nodes)
            if cluster.address is not None:
                check_reachable(folder.folder)
            labels = {folder.trial(e.settings).label: e.settings for e in todo.values()}
            with Progress(labels, already_done=len(trials) - len(todo)) as progress:
                failures, disk_is_full = _train(todo, requests, images, folder, progress)
    if disk_is_full:
        raise StorageError(f"{folder}: the disk is full; make room, then run the same command again to continue")
    return failures


def _requests(todo: dict[str, Experiment], nodes: Sequence[Node]) -> dict[str, Request]:
    return {
        trial_id: Request(
            experiment.resources.cpus_per_trial, gpu_share(experiment.resources.gpus_per_trial, nodes, len(todo))
        )
        for trial_id, experiment in todo.items()
    }


def _train(
    todo: dict[str, Experiment],
    requests: dict[str, Request],
    images: dict[DataSettings, data.Images],
    folder: SweepFolder,
    progress: Progress,
) -> tuple[dict[str, str], bool]:
    """Run Tune until every trial is finished or has failed for good.

    Returns:
        The failures by trial id, and whether some were for want of disk space.
    """
    from tune_cnn.sweep.watcher import Watcher

    failures: dict[str, str] = {}
    disk_is_full = False
    while todo:
        watcher = Watcher({trial_id: e.settings for trial_id, e in todo.items()}, folder, progress)
        try:
            _run_tune(todo, requests, images, folder, watcher)
        finally:
            watcher.close()
        failures |= watcher.failures
        disk_is_full |= watcher.disk_is_full
        # A trial that a part of a GPU was too small for gets twice as much, up to a whole one.
        requests = {
            trial_id: requests[trial_id].with_twice_the_gpu()
            for trial_id in watcher.out_of_memory
            if 0 < requests[trial_id].gpus < 1
        }
        todo = {trial_id: todo[trial_id] for trial_id in requests}
        for trial_id in todo:
            del failures[trial_id]
    return failures, disk_is_full


def _run_tune(
    todo: dict[str, Experiment],
    requests: dict[str, Request],
    images: dict[DataSettings, data.Images],
    folder: SweepFolder,
    watcher: Any,
) -> None:
    # Tune reads these when it starts: no log files and no working directory beside ours, and Ctrl-C as usual.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    from ray import tune

    from tune_cnn.sweep.stopping import PlateauStopper
    from tune_cnn.sweep.trainable import CnnTrainable, TrialPlan

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the watcher tells what happens
    plans = {trial_id: TrialPlan(e.settings, *requests[trial_id]) for trial_id, e in todo.items()}
    # The longest first, so that no long one is left to run alone at the end.
    longest_first = sorted(todo, key=lambda trial_id: _expected_work(todo[trial_id]), reverse=True)
    label = lambda trial: folder.trial(todo[trial.config["trial_id"]].settings).label  # noqa: E731

    trainable = tune.with_resources(
        tune.with_parameters(CnnTrainable, plans=plans, images=images, folder=folder),
        lambda config: {"cpu": requests[config["trial_id"]].cpus, "gpu": requests[config["trial_id"]].gpus},
    )
    # What Tune itself wants to remember is not needed: the sweep's folder says what is finished.
    with tempfile.TemporaryDirectory(prefix="tune_cnn-tune-") as scratch:
        tune.Tuner(
            trainable,
            param_space={"trial_id": tune.grid_search(longest_first)},
            tune_config=tune.TuneConfig(reuse_actors=True, trial_name_creator=label, trial_dirname_creator=label),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=scratch,
                stop=PlateauStopper(),
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[watcher],
                verbose=0,
            ),
        ).fit()


def _expected_work(experiment: Experiment) -> int:
    settings = experiment.settings
    return cost(settings).multiply_adds * settings.epochs * min(settings.batches * settings.bs_train, 50_000)


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
