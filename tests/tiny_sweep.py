"""A sweep of two small trials, trained in this process without Ray; it leaves the files of a real one."""

from collections.abc import Sequence
from pathlib import Path

from tune_cnn import data
from tune_cnn.sweep.config.load import Experiment, distinct_trials, load_experiments
from tune_cnn.sweep.earlier import find_earlier, take_over
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trainable import CnnTrainable, TrialPlan
from tune_cnn.trial import Trial

CONFIG = """\
run_name: tiny_L{L}_K{K}
grid:
  filters_per_layer: [[4], [6]]
  layers_per_block: [1]
settings: {seed: 42, bs_train: 20, epochs: 2, early_stopping: 5, hidden_dims: [10]}
data: {source: shapes, in_size: [3, 8, 8], train_images: 100, test_images: 30}
"""


def write_config(folder: Path) -> list[Experiment]:
    """Write `tiny.yaml`; return its experiments, `tiny_L1_K4` and `tiny_L1_K6`."""
    (folder / "tiny.yaml").write_text(CONFIG)
    return load_experiments([folder / "tiny.yaml"])


def train(experiments: Sequence[Experiment], folder: SweepFolder, interrupted_after: int | None = None) -> list[str]:
    """Train the unfinished trials as a sweep does, but one after the other.

    Args:
        experiments: Those of the sweep.
        folder: Its folder.
        interrupted_after: Abandon each trial after so many more epochs, unless it ends before.

    Returns:
        The epochs that were trained, such as `K4_L1_cb9d516b 3`.
    """
    trained = []
    found = find_earlier(experiments, folder)
    folder.save_experiments({experiment.name: experiment.settings for experiment in experiments})
    for experiment, *_ in distinct_trials(experiments).values():
        settings, files = experiment.settings, folder.trial(experiment.settings)
        take_over(found.get(files.trial_id), files)
        if files.is_finished():
            continue
        trial = Trial(settings, data.load(settings.data))
        files.resume(trial.load_state_dict)
        start = trial.history.num_epochs
        while trial.stop_reason is None and trial.history.num_epochs - start != interrupted_after:
            trial.run_epoch()
            trained.append(f"{files.label} {trial.history.num_epochs}")
            if trial.stop_reason is None:
                files.save_checkpoint(trial.history.num_epochs, trial.state_dict())
        if trial.stop_reason is not None:
            last = trial.state_dict() if trial.can_be_continued else None
            files.finish(trial.history, trial.summary(), trial.best_weights, last)
    return trained


def trainable(experiment: Experiment, folder: SweepFolder) -> CnnTrainable:
    """A trainable, set up as in a Ray worker, but in this process."""
    settings = experiment.settings
    worker = CnnTrainable.__new__(CnnTrainable)
    worker.setup(
        {"trial_id": settings.trial_id},
        plans={settings.trial_id: TrialPlan(settings, cpus=1, gpus=0)},
        images={settings.data: data.load(settings.data)},
        folder=folder,
        overview=[],
    )
    return worker
