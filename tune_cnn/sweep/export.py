"""Trial results -> the JSON file of each experiment."""

from pathlib import Path

from tune_cnn.errors import ResultError
from tune_cnn.experiments import experiment_config
from tune_cnn.result_files import save_experiment
from tune_cnn.sweep.storage import SweepFolder


def export(folder: SweepFolder, out_dir: Path) -> tuple[list[Path], list[str]]:
    """Write `<out_dir>/<name>.json` for every experiment whose trial is finished.

    Experiments that share a trial each get a file, under their own name.

    Returns:
        The files, and the names of the experiments that are not finished.
    """
    files, unfinished = [], []
    for name, settings in folder.experiments().items():
        try:
            record = folder.trial(settings).record()
        except ResultError:  # damaged, so it will run again
            record = None
        if record is None:
            unfinished.append(name)
            continue
        results, summary = record
        path = out_dir / f"{name}.json"
        save_experiment(path, experiment_config(name, out_dir, settings), results, summary)
        files.append(path)
    return files, unfinished
