"""The text of a report: the answers to its questions, the summary, the conditions, and how to read it."""

from collections.abc import Iterable, Sequence

from tune_cnn.report.grids import Grid, known
from tune_cnn.report.noise import difference
from tune_cnn.report.runs import VERDICTS
from tune_cnn.report.sentences_accuracy import interplay, nouns, ranked, rankings, trends
from tune_cnn.report.sentences_learning import not_learned, tried
from tune_cnn.report.wording import grid_names, listed, network, percent
from tune_cnn.settings import Settings
from tune_cnn.texts import counted, duration, enumerated, setting_text

ONE_SEED = (
    "This report cannot tell whether a difference between networks that were trained once is more than the noise "
    "between seeds. A line such as seeds: [1, 2, 3] in the config file, in place of seed, repeats every training."
)
NOTES = (
    "Accuracy is the best validation accuracy of a training, unless it is called test accuracy: that is measured once, "
    "with the weights of the best epoch. Being chosen as the best flatters the validation accuracy; the test accuracy "
    "is the one to quote.",
    "A network has learned if its accuracy is more than 1.5 times that of guessing, and more than luck or always "
    "answering one class would reach on that many validation images. Curves of networks that did not learn are dashed.",
    "Unfinished trainings are shown as they stand; they are neither compared nor called learned. A network that the "
    "scheduler stopped may yet learn: tune-cnn sweep --finish continues it.",
    "± is half the 95 % interval: of a mean over seeds by Student's t, of a difference by Welch's. A difference is "
    "within the noise if its interval holds 0; the intervals are not corrected for the number of comparisons.",
    "Expected is the diagnosis of the network before its training, from one forward and one backward pass of a batch; "
    "at risk is no prediction.",
    "Multiply-adds are those of the conv and linear layers in the forward pass of one image. Training time depends on "
    "the machine and its load.",
)


def answers(grid: Grid, others: Sequence[Grid] = ()) -> dict[str, list[str]]:
    """Answer the assignment's questions, each with lines of one or more sentences.

    The answers cover the cells of one grid, and compare them with the same cells of `others`.
    """
    names = nouns(grid)
    at = [f", at each {name}" for name in names] if len(names) > 1 else [""]
    found = {f"1.1 Which {names[-1]} is best{at[0]}?": rankings(grid)} if names else {}
    found["1.2 Which networks did not learn, and why?"] = not_learned(grid)
    found["1.3 What helps, and what was tried?"] = tried(grid, others)
    if names:
        found[f"2.1 How does accuracy change with {names[0]}{at[-1]}?"] = trends(grid)
        found[f"2.2 Which matters more, {' or '.join(names)}?"] = interplay(grid)
    return {question: lines for question, lines in found.items() if lines}


def summary(grids: Sequence[Grid]) -> list[str]:
    """Sum up how many trainings learned, which cell is the best, and what single runs cannot show."""
    runs = [run for grid in grids for run in grid.runs]
    verdicts = [run.verdict for run in runs]
    outcome = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in verdicts)
    experiments = counted(sum(len(run.names) for run in runs), "experiment")
    sentence = f"{experiments}, {counted(len(runs), 'training')}: {outcome}."
    names = {
        cell: ", ".join(filter(None, (cell.label, variant)))
        for variant, grid in zip(grid_names(grids), grids, strict=True)
        for cell in grid.cells
    }
    if learned := ranked(list(names)):
        best, *others = learned
        gaps = {cell: difference(best.accuracies, cell.accuracies) for cell in others}
        noise = [cell for cell, gap in gaps.items() if gap and gap.is_noise]
        level = noise or [cell for cell in others if percent(cell.accuracy) == percent(best.accuracy)]
        sentence += f" The highest validation accuracy is {percent(best.accuracy)} ({names[best]})"
        if best.test_accuracy:
            sentence += f", {percent(best.test_accuracy)} on the test set"
        if level:
            close = "within the noise of" if noise else "level with"
            sentence += f"; {close} it: {enumerated([f'({names[cell]})' for cell in level], most=3)}"
        sentence += "."
    compared = [cell for cell in names if cell.finished]
    has_seeds = len(compared) < 2 or all(len(cell.finished) > 1 for cell in compared)
    return [sentence] if has_seeds else [sentence, ONE_SEED]


def conditions(grids: Sequence[Grid]) -> list[tuple[str, str]]:
    """Names and values: network, the settings that all trainings share, images, device, versions and training time.

    Custom networks need not have poolings and hidden layers, and all but ConvClassifier may have an EMA of their own:
    the defaults of these settings are left out.
    """
    runs = [run for grid in grids for run in grid.runs]
    first, *others = (grid.conditions for grid in grids)
    names = dict.fromkeys(network(run.conditions) for run in runs)
    may_lack = [] if {"ConvClassifier", "YourCodeNet"} & {*names} else ["pool_every", "hidden_dims"]
    may_lack += [] if [*names] == ["ConvClassifier"] else ["average"]
    default = {key: setting_text(getattr(Settings, key)) for key in may_lack}
    shared = {key: text for key, text in first.items() if all(other.get(key) == text for other in others)}
    images = {key.removeprefix("data."): text for key, text in shared.items() if key.startswith("data.")}
    settings = [
        f"{key} {text}"
        for key, text in shared.items()
        if key != "ycn" and not key.startswith("data.") and text != default.get(key)
    ]
    seeds = sorted({run.settings.seed for run in runs if run.settings.seed is not None})
    durations = known(run.number("duration_s") for run in runs)
    found = {
        "network": "; ".join(names),
        "settings": ", ".join(settings),
        "seeds" if len(seeds) > 1 else "seed": listed(seeds) if seeds else "",
        "source of images": _distinct([images]),
        "images": _distinct(run.facts.get("images") for run in runs),
        "device": _distinct(run.facts.get("device") for run in runs),
        "threads": _distinct(run.facts.get("threads") for run in runs),
        "versions": _distinct(run.facts.get("versions") for run in runs),
        "training time": f"{duration(sum(durations))} in all" if durations else "",
    }
    return [(name, value) for name, value in found.items() if value]


def _distinct(facts: Iterable[object]) -> str:
    texts = [
        ", ".join(f"{key} {value}" for key, value in fact.items()) if isinstance(fact, dict) else str(fact)
        for fact in facts
        if fact
    ]
    return "; ".join(dict.fromkeys(texts))
