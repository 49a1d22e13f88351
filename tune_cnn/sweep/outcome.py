"""How the trials of a sweep ended, as a table."""

import math
from collections.abc import Mapping

from tune_cnn.errors import ResultError
from tune_cnn.settings import Settings, dashed
from tune_cnn.sweep.storage import SweepFolder
from tune_cnn.sweep.trial_folder import epoch_of
from tune_cnn.texts import aligned
from tune_cnn.train_results import FitResult

_COLUMNS = ("trial", "K", "L", "epochs", "best val acc %", "at epoch", "test acc %", "time s", "ended by")


def outcome_table(folder: SweepFolder, experiments: Mapping[str, Settings]) -> str:
    """One line a trial: K, L, epochs, accuracies in percent, duration, why it stopped; its seed if there are several.

    Args:
        folder: The sweep's.
        experiments: Names and settings.
    """
    trials = {settings.trial_id: settings for settings in experiments.values()}
    rows = [list(_COLUMNS), *(_row(folder, settings) for settings in trials.values())]
    if len({settings.seed for settings in trials.values()}) > 1:
        for row, seed in zip(rows, ["seed", *(settings.seed for settings in trials.values())], strict=True):
            row.insert(_COLUMNS.index("epochs"), str(seed))
    return aligned(rows)


def _row(folder: SweepFolder, settings: Settings) -> list[str]:
    trial = folder.trial(settings)
    row = [trial.label, dashed(settings.filters_per_layer), str(settings.layers_per_block)]
    try:
        record = trial.record()
    except ResultError as error:
        return [*row, *[""] * 5, str(error)]
    if record is None:
        failure = trial.failure()
        state = trial.newest_state() or {}
        how = f"failed: {failure}" if failure else "unfinished"
        try:
            results = FitResult.from_state(state.get("history"))
        except ResultError:
            epochs = max(map(epoch_of, trial.checkpoints()), default=0)
            return [*row, str(epochs), *[""] * 4, how]
        record = results, {"duration_s": math.fsum(state.get("epoch_durations_s", [])), "stop_reason": how}
    results, summary = record
    return [
        *row,
        str(results.num_epochs),
        f"{results.best_accuracy:.2f}",
        str(results.best_epoch),
        _number(summary.get("test_accuracy"), 2),
        _number(summary.get("duration_s"), 1),
        str(summary.get("stop_reason") or "-"),
    ]


def _number(value: object, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"
