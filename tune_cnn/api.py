"""The Python interface: sweeps run as by the command, with results as pandas frames and networks."""

from __future__ import annotations  # so that help() shows annotations as written here

import html
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from annotated_types import Gt, Predicate
from pydantic import WithJsonSchema
from torch import nn

from tune_cnn import models
from tune_cnn.errors import DataError, ResourceError, StorageError, TuneCnnError
from tune_cnn.files import check_writable, path_of, temporary_folder
from tune_cnn.machine import cores
from tune_cnn.results import export, show_results
from tune_cnn.rules import Count, Number, Whole, checked, name_problems
from tune_cnn.settings import Settings, varied_keys
from tune_cnn.sweep.cluster import ClusterOptions
from tune_cnn.sweep.config.load import Experiment, load_experiments
from tune_cnn.sweep.config.run_names import settings_of
from tune_cnn.sweep.config.shipped import config_path, sweep_name
from tune_cnn.sweep.lock import locked
from tune_cnn.sweep.plan import check_disk, disk_use, make_plan, plan_summary
from tune_cnn.sweep.remarks import before_start, describe
from tune_cnn.sweep.runner import run_sweep, terminated_like_ctrl_c
from tune_cnn.sweep.study import settled
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.texts import counted, tell
from tune_cnn.train_results import epoch_means

_FIRST = ["best_validation_accuracy", "test_accuracy", "epochs_run", "stop_reason", "verdict"]

Callback = Annotated[
    Any,
    Predicate(lambda value: hasattr(value, "on_trial_result") and not isinstance(value, type)),
    WithJsonSchema({"description": "instances of ray.tune.Callback, such as [MyCallback()]"}),
]
Seconds = Annotated[Number, Gt(0)]


class Sweep:
    """A sweep in its folder: the experiments asked for last, and their results so far.

    Attributes:
        folder: Its path or URI.
        failures: Why trials failed in the last run, in one line each, by trial id.
    """

    def __init__(self, folder: SweepFolder, failures: Mapping[str, str] = {}) -> None:
        self._files = folder
        self.folder = str(folder)
        self.failures = dict(failures)

    def __repr__(self) -> str:
        return f"<sweep {self.folder}: {', '.join(self.experiments)}>"

    @property
    def experiments(self) -> dict[str, Settings]:
        """The settings of the experiments asked for last, by name."""
        return self._files.experiments()

    @property
    def results(self) -> pd.DataFrame:
        """One row per experiment, by name; settings that vary come first. Accuracies in percent, times in seconds."""
        from tune_cnn.report.grids import load_grids
        from tune_cnn.report.table import experiments_frame

        with temporary_folder() as folder:
            frame = experiments_frame(load_grids(*self._exported(folder))).set_index("experiment")
        experiments = self.experiments
        varied = varied_keys([settings.flat() for settings in experiments.values()])
        columns = [key for key in dict.fromkeys([*varied, *_FIRST, *frame]) if key in frame or key in _FIRST]
        return frame.reindex([name for name in experiments if name in frame.index], columns=columns)

    def history(self, name: str) -> pd.DataFrame:
        """One row per epoch, counted from 1: mean losses in nats, accuracies in percent."""
        trial = self._files.trial(self._settings(name))
        if (found := trial.record() or trial.as_it_stands(trial.newest_state())) is None:
            raise self._none_yet(name, "finished epoch")
        history = found[0]
        columns = {
            "train_loss": epoch_means(history.train_loss, history.num_epochs),
            "validation_loss": epoch_means(history.test_loss, history.num_epochs),
            "train_accuracy": history.train_acc,
            "validation_accuracy": history.test_acc,
        }
        return pd.DataFrame(columns, index=pd.RangeIndex(1, history.num_epochs + 1, name="epoch"))

    def model(self, name: str) -> nn.Module:
        """The network of an experiment with its best weights, in evaluation mode, on the CPU.

        It maps images (N, channels, height, width), float32 in [0, 1], to logits (N, classes).

        Raises:
            StorageError: No epoch is finished yet, or the weights are gone or damaged.
        """
        settings = self._settings(name)
        trial = self._files.trial(settings)
        if (weights := trial.best_weights()) is None:
            if trial.record() is None:
                raise self._none_yet(name, "weights")
            raise StorageError(f"{trial.folder}/best.pt: gone or damaged; delete this folder, then run the sweep again")
        model = models.build(settings)
        model.load_state_dict(weights)
        return model.eval()

    def _repr_html_(self) -> str:
        """The report, as a notebook shows it."""
        from tune_cnn.report import write_report

        with temporary_folder() as folder:
            files, asked, failures = self._exported(folder)
            page, *_ = write_report(self._files.name, files, folder, asked=asked, failures=failures)
            content = html.escape(page.read_text("utf-8"))
        return f'<iframe srcdoc="{content}" style="width: 100%; height: 80vh; border: 0"></iframe>'

    def _exported(self, folder: Path) -> tuple[list[Path], dict[str, Settings], dict[str, str]]:
        """Write result files; return them, the experiments asked for, and why some failed."""
        found = export(self._files, folder, not_measured="only tune-cnn export measures it")
        return found.files, self.experiments, found.failures

    def _none_yet(self, name: str, what: str) -> StorageError:
        why = self._files.trial(self._settings(name)).failure() or "its first epoch has not ended"
        return StorageError(f"{self.folder}: {name} has no {what} yet ({why}); run the sweep")

    def _settings(self, name: str) -> Settings:
        return settings_of(name, self.experiments, self.folder)


@checked
def sweep(
    *files: str | Path,
    name: str | None = None,
    data: str | Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] = {},
    only: str | Sequence[str] = (),
    finish: str | Sequence[str] = (),
    storage: str | Path = "ray_results",
    out: str | Path = "results",
    fresh: bool = False,
    address: str | None = None,
    cpus: Count | None = None,
    gpus: Whole | None = None,
    time_budget_s: Seconds | None = None,
    max_concurrent: Count | None = None,
    callbacks: Sequence[Callback] = (),
) -> Sweep:
    """Train the experiments of config files, several at once, as `tune-cnn sweep` does; repeat it to resume.

    Args:
        files: Config files, or the names of shipped ones, such as `quick`.
        name: The sweep's name; None: made from the files' names.
        data: Source of images, such as `image_folder:photos` or a mapping, in place of that in the files.
        settings: Changes to the files, such as `{"epochs": 5, "grid.layers_per_block": [2, 4]}`.
        only: Patterns; experiments whose name matches none are left out.
        finish: Patterns; no scheduler stops experiments whose name matches one.
        storage: Where sweeps are kept: a folder, or a URI that pyarrow supports.
        out: Where the result files, figures and the report go.
        fresh: Train everything again, in a new folder.
        address: A running Ray cluster to join.
        cpus: Cores to use; None: all.
        gpus: GPUs to use; None: all.
        time_budget_s: Stop after so many seconds.
        max_concurrent: The largest number of trials that run at once.
        callbacks: Callbacks of Ray Tune, such as `ray.air.integrations.mlflow.MLflowLoggerCallback()`; an error in one
            is printed, and the sweep goes on. Results have `epoch`, `train_loss` (nats), `validation_accuracy` (%), ...

    Raises:
        ConfigError: The files or arguments have faults; it lists all of them.
        DataError: The images cannot be found or read.
        ResourceError: A trial asks for more than any node has.
        StorageError: The sweep's folder cannot be used, or another process is running the sweep.
    """
    paths = [config_path(file) for file in files]
    name = name or sweep_name(paths)
    changes = [f"{key}={v if isinstance(v, str) else json.dumps(v, default=repr)}" for key, v in settings.items()]
    only, finish = ([patterns] if isinstance(patterns, str) else patterns for patterns in (only, finish))
    faults = {"name": name_problems(name)}
    experiments = load_experiments(
        paths, overrides=changes, only=only, finish=finish, data=data, may_be_open=True, further=faults
    )
    folder = SweepFolder(str(storage), name)
    if fresh:
        folder.start_over()
    failures, _ = train(
        experiments,
        folder,
        path_of(out),
        ClusterOptions(address, cpus, gpus),
        keep_others=bool(only),
        callbacks=callbacks,
        tune_options={"time_budget_s": time_budget_s, "max_concurrent_trials": max_concurrent},
    )
    return Sweep(folder, failures)


@checked
def open_sweep(sweep: str | Path, storage: str | Path = "ray_results") -> Sweep:
    """Open a sweep that was run before, by its folder or by its name below `storage`.

    Raises:
        StorageError: There is none.
    """
    return Sweep(SweepFolder.find(str(sweep), str(storage)))


def train(
    experiments: Sequence[Experiment],
    folder: SweepFolder,
    out: Path,
    cluster: ClusterOptions,
    keep_others: bool = False,
    callbacks: Sequence[Any] = (),
    tune_options: Mapping[str, Any] = {},
) -> tuple[dict[str, str], bool]:
    """Train what is missing, then export, draw and report what is finished, and say on stderr what happens.

    Returns:
        Why trials failed, by trial id; and whether all others are finished, and all results written.
    """
    plan = make_plan(settled(experiments, folder), folder)
    describe(plan, cluster)
    tell(f"sweep {folder}: {plan_summary(plan)}", file=sys.stderr)
    others = {n: folder.trial(s) for n, s in folder.earlier_experiments().items()} if keep_others else {}
    for remark in before_start(plan, cluster, out, others):
        tell(remark, file=sys.stderr)
    check_writable(out)
    check_disk(folder, disk_use(plan, at_once=cluster.cpus or cores())[0])
    failures, end = dict[str, str](), None
    with locked(folder.folder) as lock, terminated_like_ctrl_c():
        try:
            failures = run_sweep(plan, folder, cluster, keep_others, lock.check, callbacks, tune_options)
        except BaseException as error:
            is_lost = isinstance(error, StorageError) and not folder.folder.is_local  # the server would only fail again
            if is_lost or isinstance(error, DataError | ResourceError):  # raised before anything started
                raise
            end = error
        if isinstance(end, KeyboardInterrupt):
            tell("stopping; what is finished is written first", file=sys.stderr)
        try:
            with terminated_like_ctrl_c():  # again, as Ray's shutdown drops the handler of SIGTERM
                is_written = show_results(folder, out)
            asked = [e for e in settled(experiments, folder) if e.is_open or e.settings.trial_id not in failures]
            left = [e for e in asked if e.is_open or not folder.trial(e.settings).is_finished()]
        except (TuneCnnError, OSError) as error:
            if end is not None:  # the error that matters
                tell(error, file=sys.stderr)
            raise end or error from None
    if end is not None and (left or not is_written or not isinstance(end, KeyboardInterrupt)):
        raise end
    if left:
        why = "the time budget is used up, " if tune_options.get("time_budget_s") else ""
        tell(f"{why}{counted(len(left), 'experiment')} unfinished; the same command continues")
    return failures, is_written and not left
