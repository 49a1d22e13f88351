"""Under what conditions the numbers of a report came about, and how to read them."""

from collections import Counter
from collections.abc import Sequence

from tune_cnn.report.cells import Grid
from tune_cnn.report.phrases import flat, listed, network, plain
from tune_cnn.texts import duration


def conditions(grids: Sequence[Grid]) -> list[tuple[str, str]]:
    """Names and values: the settings that all trainings share, their images, machine, versions and time."""
    tables = [flat(grid.settings) for grid in grids]
    shared = {key: value for key, value in tables[0].items() if all(table[key] == value for table in tables)}
    settings = ", ".join(
        network(grids[0].settings) if key == "ycn" else f"{key} {plain(value)}"
        for key, value in shared.items()
        if not key.startswith("data.") and value is not None
    )
    runs = [run for grid in grids for cell in grid.cells for run in cell.finished]
    seeds = sorted(
        {run.settings.seed for grid in grids for c in grid.cells for run in c.runs if run.settings.seed is not None}
    )
    images = Counter(
        f"{split.get('train')} to train, {split.get('validation')} to validate, {split.get('test')} to test"
        for run in runs
        if isinstance(split := run.fact("images"), dict)
    )
    versions = Counter(
        ", ".join(f"{key} {value}" for key, value in found.items())
        for run in runs
        if isinstance(found := run.fact("versions"), dict)
    )
    devices = Counter(
        f"{run.fact('device')}" + (f", threads: {run.fact('threads')}" if run.fact("device") == "cpu" else "")
        for run in runs
        if run.fact("device")
    )
    durations = [seconds for run in runs if (seconds := run.number("duration_s")) is not None]
    source = {key.removeprefix("data."): value for key, value in shared.items() if key.startswith("data.")}
    found = {
        "settings": settings,
        "seeds": listed(seeds) if seeds else "",
        "source of images": ", ".join(f"{key} {plain(value)}" for key, value in source.items() if value is not None),
        "images": "; ".join(images),
        "device": "; ".join(devices),
        "versions": "; ".join(versions),
        "training time": f"{duration(sum(durations))} in all" if durations else "",
    }
    return [(name, value) for name, value in found.items() if value]


def notes(grids: Sequence[Grid]) -> list[str]:
    """How to read the report."""
    found = [
        "Accuracies are the best validation accuracies of the trainings, unless they are called test accuracies: those "
        "are measured once, with the weights of the best epoch.",
        "A network has learned if its best validation accuracy is more than 1.5 times that of guessing. Curves of "
        "those that have not are dashed.",
        "Multiply-adds are those of the conv and linear layers for one image, forward. Training time depends on the "
        "machine, and on what else it had to do.",
    ]
    if any(cell.accuracy and cell.accuracy.margin is not None for grid in grids for cell in grid.cells):
        found.insert(
            1,
            "± is half the 95 % interval of the mean over seeds (Student's t). A difference lies within the noise if "
            "its 95 % interval (Welch) holds 0; the intervals are not corrected for the number of comparisons.",
        )
    if any(run.expected for grid in grids for cell in grid.cells for run in cell.runs):
        found.append(
            "What was expected is the diagnosis of the network before its training, from one forward and one backward "
            "pass of a batch; at risk is no prediction."
        )
    return found


def single_seed_note(grids: Sequence[Grid]) -> list[str]:
    """What the report cannot tell, if no cell was repeated."""
    cells = [cell for grid in grids for cell in grid.cells if cell.finished]
    if len(cells) < 2 or any(len(cell.runs) > 1 for cell in cells):
        return []
    return [
        "Every cell was trained with one seed, so this report cannot tell whether a difference is more than the noise "
        "between seeds. A line such as seeds: [1, 2, 3] in the config file, in place of seed, repeats every cell."
    ]
