"""A sweep of two small trials, trained in this process and without Ray, as a real one leaves it."""

from collections.abc import Sequence
from pathlib import Path

from tune_cnn import data
from tune_cnn.sweep.search_space import Experiment, distinct_trials, load_experiments
from tune_cnn.sweep.storage import SweepFolder
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


def train(experiments: Sequence[Experiment], folder: SweepFolder) -> None:
    """Do what a sweep does to the trials that are not finished yet, one after the other."""
    folder.save_experiments({experiment.name: experiment.settings for experiment in experiments})
    for experiment, *_ in distinct_trials(experiments).values():
        settings = experiment.settings
        if not folder.trial(settings).is_finished():
            trial = Trial(settings, data.load(settings.data))
            while trial.stop_reason is None:
                trial.run_epoch()
            folder.trial(settings).finish(settings, trial.history, trial.summary(), trial.best_weights)
