"""Trial results -> the JSON file of each experiment."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tune_cnn import data
from tune_cnn.errors import DataError, ResultError
from tune_cnn.experiments import experiment_config
from tune_cnn.result_files import save_experiment
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.train_results import FitResult
from tune_cnn.training.devices import default_device
from tune_cnn.trial import Trial


class Exported(NamedTuple):
    """What `export` did."""

    files: list[Path]  # of the experiments that have an epoch behind them
    unfinished: list[str]  # the names of those among them that are not finished
    missing: dict[str, str | None]  # the experiments without a file, each with why it failed; None: it was not begun
    remarks: list[str]  # why the test set was not measured, one line a reason


def export(folder: SweepFolder, out_dir: Path, not_measured: str | None = None) -> Exported:
    """Write `<out_dir>/<name>.json` for every experiment whose trial has an epoch behind it, and has not failed.

    Experiments that share a trial each get a file, under their own name. That of an unfinished trial says so, has its
    epochs so far, and what their best weights reach on the test set; `not_measured` says why that is left out, which
    takes images and time.
    """
    done = Exported([], [], {}, [])
    reasons: dict[DataSettings | str, str] = {}

    @cache
    def images(source: DataSettings) -> data.Images | None:
        try:
            return None if not_measured else data.load(source, progress=True, download=False)
        except DataError as error:
            reasons[source] = str(error).partition("\n")[0]
            return None

    @cache
    def outcome(settings: Settings) -> tuple[FitResult, dict[str, Any]] | None:
        trial = folder.trial(settings)
        try:
            if (record := trial.record()) is not None:
                return record
        except ResultError:  # damaged, so the trial will run again
            return None
        state = trial.newest_state() if trial.failure() is None else None
        found = trial.as_it_stands(state)
        if settings.model is not None:
            reasons[settings.model] = "no code of own networks is run here"
        elif state is not None and found is not None and (loaded := images(settings.data)) is not None:
            tested = Trial(settings, loaded, default_device())
            try:
                tested.load_state_dict(state)
            except ResultError:  # it does not fit
                return None
            tested.measure_test()
            found[1].update({key: tested.summary()[key] for key in ("test_accuracy", "test_loss", "confusion")})
        return found

    searches = folder.searches()
    for name, settings in folder.experiments().items():
        if (found := outcome(settings)) is None:
            done.missing[name] = folder.trial(settings).failure()
            continue
        results, summary = found
        if name in searches:
            summary = {**summary, "search": searches[name], "sweep": folder.name}
        path = out_dir / f"{name}.json"
        save_experiment(path, experiment_config(name, out_dir, settings), results, summary)
        done.files.append(path)
        if summary.get("unfinished"):
            done.unfinished.append(name)
    if done.unfinished:
        told = dict.fromkeys([not_measured] if not_measured else reasons.values())
        done.remarks.extend(f"the test set of unfinished trials is not measured: {reason}" for reason in told)
    return done
