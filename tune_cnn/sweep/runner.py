"""Runs a sweep: trains what is missing, and shows the progress."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from tune_cnn import data, models
from tune_cnn.sweep.cluster import ClusterOptions, check_reachable, connected, own_node
from tune_cnn.sweep.config.load import Experiment
from tune_cnn.sweep.earlier import take_over
from tune_cnn.sweep.live_table import Progress
from tune_cnn.sweep.plan import PlannedExperiment
from tune_cnn.sweep.resources import GpuMemory, Node, fitting, requests
from tune_cnn.sweep.study import Suggestions, open_studies
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.waiting import waiting

_GPU_WAIT_S = 180.0  # to get a whole GPU and measure on it


def run_sweep(
    plan: Sequence[PlannedExperiment],
    folder: SweepFolder,
    cluster: ClusterOptions,
    keep_others: bool = False,
    check_lock: Callable[[], object] = lambda: None,
    callbacks: Sequence[Any] = (),
    tune_options: Mapping[str, Any] = {},
) -> dict[str, str]:
    """Train every trial that is not finished yet, several at once; continue those that were interrupted.

    Args:
        plan: The experiments to run; those with equal settings are trained once.
        folder: Its lock is held by the caller.
        keep_others: Keep the folder's earlier experiments of other names in the sweep, without running them.
        check_lock: Raises StorageError if another process may be running the sweep now; called repeatedly.
        tune_options: Further arguments of `tune.TuneConfig`, such as `time_budget_s`.

    Returns:
        Why trials failed for good, in one line each, by trial id. Finished trials are in the folder.

    Raises:
        DataError, ResourceError: The images cannot be read, or no node has what a trial requests.
        StorageError: The storage fails, a node cannot reach it, or the lock is lost; finished trials are kept.
        KeyboardInterrupt: On Ctrl-C or SIGTERM; the same sweep continues from the checkpoints in the folder.
    """
    upcoming: list[Experiment] = [e for e in plan if e.is_open]
    experiments: list[Experiment] = [e for e in plan if not e.is_open]
    distinct = [line for line in plan if not line.is_open and line.shares_with is None]
    todo, behind = dict[str, Experiment](), dict[str, int]()
    for line in distinct:
        trial = folder.trial(line.settings)
        take_over(line.start, trial)
        if line.start is not None and line.start.is_cut_short:
            trial.reopen()
        if line.state == "done" and (not line.elsewhere or trial.is_finished()):
            trial.forget_training(line.epochs_done)  # in case its process was killed before doing so
        else:
            todo[line.settings.trial_id], behind[trial.label] = line, line.epochs_done
    node = own_node(cluster)
    # The settings that Optuna will suggest are not known yet: their placeholders count, under the experiments' names.
    possible = todo | {experiment.name: experiment for experiment in upcoming}
    done, count = len(distinct) - len(todo), len(distinct) + len(upcoming)
    if possible and node is not None:
        requests(possible, [node], count)  # raises its errors before the images are loaded
    others = folder.earlier_experiments() if keep_others else {}

    def save() -> None:
        searches = {e.name: e.search for e in experiments if e.search}
        folder.save_experiments(others | {e.name: e.settings for e in experiments}, folder.searches() | searches)

    save()

    with ExitStack() as stack:
        suggestions = None
        if any(experiment.study for experiment in (*experiments, *upcoming)):
            studies = stack.enter_context(open_studies(folder))
            studies.tell(experiments)  # in case the sweep was killed before doing so
            suggestions = Suggestions(studies, experiments, upcoming, save)
        if not possible:
            return {}
        sources = {e.settings.data for e in possible.values()}
        with waiting("loading images"):  # before Ray's slow start, so that missing ones are reported at once
            images = {source: data.load(source, progress=True) for source in sources}
        # Set again, since Ray, once started, takes SIGTERM for a crash and aborts three seconds later.
        with connected(cluster, sum(map(data.nbytes, sources))) as (nodes, is_new), terminated_like_ctrl_c():
            asked = requests(possible, nodes, count, _gpu_memory(possible, nodes, cluster))
            if cluster.address is not None:
                check_reachable(folder.folder)
            from tune_cnn.sweep.tune_run import run_tune
            from tune_cnn.sweep.watcher import Watcher, published

            labels = {folder.trial(e.settings).label: e.settings for e in todo.values()}
            with Progress(
                labels, behind, done, upcoming=len(upcoming), within_epoch=lambda name: published(folder.trials / name)
            ) as progress:
                watcher = Watcher([e.settings for e in todo.values()], folder, progress, check_lock, is_new)
                left_s = tune_options.get("time_budget_s")
                while (todo or suggestions) and (left_s is None or left_s > 0):
                    began, options = time.monotonic(), {**tune_options, "time_budget_s": left_s}
                    run_tune(todo, asked, images, folder, watcher, callbacks, options, suggestions)
                    left_s = None if left_s is None else left_s - (time.monotonic() - began)
                    suggestions = None
                    # A trial that ran out of memory on a fraction of a GPU gets twice as much, up to a whole GPU.
                    again = {key: asked[key] for key in watcher.out_of_memory if 0 < asked[key].gpus < 1}
                    asked = {key: request._replace(gpus=fitting(2 * request.gpus)) for key, request in again.items()}
                    todo = {trial_id: todo[trial_id] for trial_id in again}
                    watcher.out_of_memory.clear()
                    for trial_id in again:
                        del watcher.failures[trial_id]
                return watcher.failures


def _gpu_memory(todo: Mapping[str, Experiment], nodes: Sequence[Node], cluster: ClusterOptions) -> dict[str, GpuMemory]:
    """GPU memory of each trial, measured on a machine with a GPU; empty if there is none, or no fraction is `auto`."""
    trials = {trial_id: e.settings for trial_id, e in todo.items() if e.resources.gpus_per_trial == "auto"}
    only_in_name = cluster.address is None and not torch.cuda.is_available()
    if not trials or only_in_name or not any(node.gpus for node in nodes):
        return {}
    import ray

    from tune_cnn.sweep.pace import measure_gpu_memory

    sources = models.sources(trials.values())
    measured = ray.remote(num_gpus=1, max_retries=0)(measure_gpu_memory).remote(trials, sources)
    try:
        with waiting("measuring GPU memory"):
            memory: dict[str, GpuMemory] = ray.get(measured, timeout=_GPU_WAIT_S)
    except ray.exceptions.RayError:  # the fractions then depend on the number of trials alone
        ray.cancel(measured, force=True)  # it may still be waiting for a whole GPU
        return {}
    return memory


@contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP when the terminal closes, end the sweep as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:  # Windows has no SIGHUP
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                    restore: Callable[..., Any] = signal.signal
                    stack.callback(restore, number, signal.signal(number, interrupt))
        yield
