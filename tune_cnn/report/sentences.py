"""The text of a report: the answers to its questions, the summary, the conditions, and how to read it."""

from collections.abc import Iterable, Sequence

from tune_cnn.report.grids import Grid, known
from tune_cnn.report.noise import difference
from tune_cnn.report.runs import UNCLEAR, VERDICTS
from tune_cnn.report.sentences_accuracy import interplay, nouns, ranked, rankings, trends
from tune_cnn.report.sentences_learning import not_learned, tried
from tune_cnn.report.wording import grid_names, is_network, listed, network, percent
from tune_cnn.settings import Settings
from tune_cnn.texts import counted, duration, enumerated, setting_text


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
    variants = {cell: name for name, grid in zip(grid_names(grids), grids, strict=True) for cell in grid.cells}
    if learned := ranked(list(variants)):
        best, so_far = learned[0], "" if all(run.is_finished for run in runs) else " so far"
        gaps = {cell: difference(best.accuracies, cell.accuracies) for cell in learned[1:]}
        noise = [cell for cell, gap in gaps.items() if gap and gap.is_noise]
        level = noise or [cell for cell in gaps if percent(cell.accuracy) == percent(best.accuracy)]
        names = [f"{cell.label}, {variants[cell]}" if len(grids) > 1 else cell.label for cell in (best, *level)]
        names[1:] = names[1:] if len(level) == 1 else [f"({name})" for name in names[1:]]  # names contain commas
        on_test = f", {percent(best.test_accuracy)} on the test set" if best.test_accuracy else ""
        accuracy = f"{percent(best.accuracy)} validation accuracy{on_test}"
        others = f"; {'within the noise of' if noise else 'level with'} it: {enumerated(names[1:], most=3)}"
        what, of = ("highest mean", "that of ") if noise else ("best", "")
        sentence += (
            f" Of those that learned, the {what}{so_far} is {of}{names[0]}: {accuracy}{others if level else ''}."
        )
    compared = [cell for cell in variants if cell.finished]
    if len(compared) < 2 or all(len(cell.finished) > 1 for cell in compared):
        return [sentence]
    return [
        sentence,
        "This report cannot tell whether a difference between networks that were trained once is more than the noise "
        "between seeds. A line such as seeds: [1, 2, 3] in the config file, in place of seed, repeats every training.",
    ]


def conditions(grids: Sequence[Grid]) -> list[tuple[str, str]]:
    """Names and values: the settings that all trainings share, then images, device, versions and training time."""
    tables = [grid.conditions for grid in grids]
    runs = [run for grid in grids for run in grid.runs]
    shared = {key: text for key, text in tables[0].items() if all(table.get(key) == text for table in tables)}
    if any(is_network(key) for run in runs for key in run.told):
        shared.pop("ycn", None)  # another key names the network
    unsaid = ["pool_every", "hidden_dims"] if "model" in shared else []  # a custom network need not take them
    if any(run.settings.ycn or run.settings.model for run in runs):
        unsaid.append("average")  # other networks may have their own EMA
    for key in unsaid:
        if shared.get(key) == setting_text(getattr(Settings(), key)):
            del shared[key]
    settings = [
        network(shared) if key == "ycn" else f"{key} {text}"
        for key, text in shared.items()
        if not key.startswith("data.")
    ]
    seeds = sorted({run.settings.seed for run in runs if run.settings.seed is not None})
    durations = known(run.number("duration_s") for run in runs)
    found = {
        "settings": ", ".join(settings),
        "seeds" if len(seeds) > 1 else "seed": listed(seeds) if seeds else "",
        "source of images": ", ".join(
            f"{key.removeprefix('data.')} {text}" for key, text in shared.items() if key.startswith("data.")
        ),
        "images": _distinct(_pairs(run.facts.get("images"), "{1} for {0}") for run in runs),
        "device": _distinct(
            f"{device}, threads: {run.facts.get('threads')}" if device == "cpu" else device
            for run in runs
            if (device := run.facts.get("device"))
        ),
        "versions": _distinct(_pairs(run.facts.get("versions"), "{0} {1}") for run in runs),
        "training time": f"{duration(sum(durations))} in all" if durations else "",
    }
    return [(name, value) for name, value in found.items() if value]


def _distinct(texts: Iterable[object]) -> str:
    return "; ".join(dict.fromkeys(str(text) for text in texts if text))


def _pairs(fact: object, shape: str) -> str:
    return ", ".join(shape.format(*pair) for pair in fact.items()) if isinstance(fact, dict) else ""


def notes(grids: Sequence[Grid], in_grids: Sequence[Grid]) -> list[str]:
    """Explain how to read the report on these grids; `in_grids` are those shown as grids, not as a search."""
    runs = [run for grid in grids for run in grid.runs]
    found = [
        "Accuracy is the best validation accuracy of a training, unless it is called test accuracy: that is measured "
        "once, with the weights of the best epoch. Being chosen as the best flatters the validation accuracy; the test "
        "accuracy is the one to quote.",
        "A network has learned if its accuracy is more than 1.5 times that of guessing, and more than luck or always "
        "answering one class would reach on that many validation images.",
    ]
    if any(run.verdict == UNCLEAR for run in runs):
        found.append("A network that the scheduler stopped before may yet learn: tune-cnn sweep --finish continues it.")
    if any(run.history and not run.search for run in runs):
        found.append("Curves of networks that did not learn are dashed.")
    if in_grids:
        found.append(
            "Multiply-adds are those of the conv and linear layers in the forward pass of one image. Training time "
            "depends on the machine and its load."
        )
    if any(cell.accuracy and cell.accuracy.margin is not None for grid in grids for cell in grid.cells):
        found.append(
            "± is half the 95 % interval of the mean over seeds (Student's t). A difference is within the noise if its "
            "95 % interval (Welch) holds 0; the intervals are not corrected for the number of comparisons."
        )
    if any(run.expected for grid in in_grids for run in grid.runs):
        found.append(
            "Expected is the diagnosis of the network before its training, from one forward and one backward pass of a "
            "batch; at risk is no prediction."
        )
    if any(run.verdict == "unfinished" for run in runs):
        found.append("Unfinished trainings are shown as they stand; they are neither compared nor called learned.")
    return found
