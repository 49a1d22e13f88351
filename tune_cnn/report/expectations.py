"""What the diagnosis before the training expected, beside what happened."""

from collections.abc import Iterable

from tune_cnn.report.cells import Cell, Grid
from tune_cnn.report.phrases import places
from tune_cnn.report.runs import Run
from tune_cnn.texts import counted

_OUTCOMES = {"learned": "trains", "did not learn": "will not learn", "diverged": "will not learn"}


def expectations(grid: Grid) -> list[str]:
    """How often the diagnosis was right, and where it was wrong or undecided; nothing where no file has one."""
    pairs = [(cell, run) for cell in grid.cells for run in cell.runs if run.expected and run.verdict in _OUTCOMES]
    decided = [(cell, run) for cell, run in pairs if run.expected != "at risk"]
    wrong = [(cell, run) for cell, run in decided if run.expected != _OUTCOMES[run.verdict]]
    sentences = []
    if decided:
        right = len(decided) - len(wrong)
        sentences.append(
            f"The diagnosis before the training was right on {right} of {counted(len(decided), 'training')}."
        )
    if learned := [pair for pair in wrong if _learned(pair[1])]:
        sentences.append(f"It did not expect {_places(learned)} to learn, but that happened.")
    if flat := [pair for pair in wrong if not _learned(pair[1])]:
        sentences.append(f"It expected {_places(flat)} to learn, but that did not happen.")
    if undecided := [pair for pair in pairs if pair[1].expected == "at risk"]:
        count = sum(_learned(run) for _, run in undecided)
        begin = "It" if sentences else "The diagnosis before the training"
        of_all = f"{count} of {counted(len(undecided), 'training')}"
        sentences.append(f"{begin} took {_places(undecided)} to be at risk; {of_all} learned.")
    return [" ".join(sentences)] if sentences else []


def weak_signal(grid: Grid) -> list[str]:
    """How little told images apart, before the training, in the cells that did not learn; if that sets them apart."""
    runs = [run for cell in grid.cells for run in cell.finished]
    flat = [run.score_spread for run in runs if run.verdict == "did not learn" and run.score_spread is not None]
    learned = [run.score_spread for run in runs if run.verdict == "learned" and run.score_spread is not None]
    if not flat or not learned or max(flat) >= min(learned):
        return []
    return [
        f"Before the training, the scores of different images differed by {max(flat):.1e} at most in the networks that "
        f"did not learn, and by {min(learned):.1e} at least in those that learned."
    ]


def _learned(run: Run) -> bool:
    return run.verdict == "learned"


def _places(pairs: Iterable[tuple[Cell, Run]]) -> str:
    return places(list(dict.fromkeys(cell for cell, _ in pairs)))
