"""The report: crafted result files in, exact sentences out."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from crafted_results import FLAT, history, one_grid, settings, write, write_grid
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tune_cnn.report.grids import Cell, Grid, load_grids
from tune_cnn.report.noise import difference, mean, t_quantile
from tune_cnn.report.runs import Run
from tune_cnn.report.sentences import answers, conditions, summary
from tune_cnn.report.sentences_learning import expectations, not_learned, weak_signal
from tune_cnn.report.table import experiments_frame, results_table
from tune_cnn.report.wording import grid_names, listed, places
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.texts import duration

GUESSING = "chance gives 10.0 %, and more than 15.0 % counts as learned"
AT_GUESSING = (
    "the training loss stayed at that of guessing, ln 10 = 2.303, in every epoch, "
    "so the scores do not depend on the image."
)
LOST_SIGNAL = (
    f"{AT_GUESSING} The likely cause is the initialisation: with PyTorch's default, each conv layer and its ReLU "
    "shrink the differences between images, and the gradient on its way back, until weight decay outweighs it."
)
UNKNOWN = (
    f"{AT_GUESSING} The results do not show the cause; look at depth, initialisation, lr, reg and number of batches."
)
REMEDIES = (
    "Two things keep the signal: an initialisation made for ReLU (He et al., 2015), or batch normalisation with skip "
    "connections, as in YourCodeNet (ycn: true)."
)


def table(*grids: Grid) -> list[list[str]]:
    return results_table(grids).to_numpy().tolist()


def told(grid: Grid, *others: Grid) -> dict[str, list[str]]:
    """The answers by the number of their question."""
    return {question.split()[0]: lines for question, lines in answers(grid, others).items()}


def test_epochs_that_were_asked_for_stand_beside_those_that_were_run(tmp_path):
    trials = [settings(32, 2, epochs=epochs) for epochs in (10, 20)]
    files = [write(tmp_path, f"exp_{trial.epochs}", trial, history(60)) for trial in trials]
    found = results_table(load_grids(files))
    assert found[["most epochs", "epochs"]].to_numpy().tolist() == [["10", "4"], ["20", "4"]]


# One seed


def test_the_assignments_grid_is_answered_in_sentences(tmp_path):
    grid = one_grid(
        tmp_path,
        {
            (32, 2): 62.6, (32, 4): 67.2, (32, 8): FLAT, (32, 16): 10.5,
            (64, 2): 63.9, (64, 4): 69.2, (64, 8): FLAT, (64, 16): FLAT,
            (128, 2): 63.0, (128, 4): 69.7, (128, 8): FLAT,
        },
    )  # fmt: skip
    assert told(grid) == {
        "1.1": [
            "At K = 32, best first: L = 4 (67.2 %), L = 2 (62.6 %); L = 8 and 16 did not learn.",
            "At K = 64, best first: L = 4 (69.2 %), L = 2 (63.9 %); L = 8 and 16 did not learn.",
            "At K = 128, best first: L = 4 (69.7 %), L = 2 (63.0 %); L = 8 did not learn.",
        ],
        "1.2": [
            "L = 8 at K = 32, 64 and 128, and L = 16 at K = 32 and 64 did not learn: "
            f"at most 10.5 % validation accuracy, where {GUESSING}.",
            f"Why: {LOST_SIGNAL}",
        ],
        "1.3": [REMEDIES],
        "2.1": [
            "At L = 2, accuracy rises and falls with K: 62.6 % (K = 32), 63.9 % (K = 64), 63.0 % (K = 128).",
            "At L = 4, accuracy rises with K: 67.2 % (K = 32), 69.2 % (K = 64), 69.7 % (K = 128).",
        ],
        "2.2": [
            "What learns is decided by depth, not by width: L = 2 and 4 learned at every K, L = 8 and 16 at none.",
            "Among the cells that learned, width changes accuracy by up to 2.5 points "
            "(at L = 4, from K = 32 to 128), depth changes accuracy by up to 6.7 points (at K = 128, from L = 2 to 4).",
        ],
    }
    assert summary([grid])[0] == (
        "11 experiments, 11 trainings: 6 learned, 5 did not learn. "
        "The highest validation accuracy is 69.7 % (K = 128, L = 4), 68.7 % on the test set."
    )


def test_what_the_reader_sees_as_equal_stands_in_the_order_of_the_grid(tmp_path):
    grid = one_grid(tmp_path, {(32, 1): 60.0, (32, 2): 65.01, (32, 4): 65.04})
    assert told(grid)["1.1"] == ["At K = 32, best first: L = 2 (65.0 %), L = 4 (65.0 %), L = 1 (60.0 %)."]


@pytest.mark.parametrize(
    ("accuracies", "sentence"),
    [
        ((60, 61), "At L = 2, accuracy rises with K: 60.0 % (K = 32), 61.0 % (K = 64)."),
        ((61, 60), "At L = 2, accuracy falls with K: 61.0 % (K = 32), 60.0 % (K = 64)."),
        ((60, 60), "At L = 2, accuracy does not change with K: 60.0 % (K = 32), 60.0 % (K = 64)."),
        ((60, 61, 61), "At L = 2, accuracy rises with K: 60.0 % (K = 32), 61.0 % (K = 64), 61.0 % (K = 128)."),
        (
            (61, 60, 61),
            "At L = 2, accuracy rises and falls with K: 61.0 % (K = 32), 60.0 % (K = 64), 61.0 % (K = 128).",
        ),
    ],
)
def test_how_accuracy_moves_with_the_width(tmp_path, accuracies, sentence):
    cells = {(k, 2): accuracy for k, accuracy in zip((32, 64, 128), accuracies, strict=False)}
    assert told(one_grid(tmp_path, cells))["2.1"][0] == sentence


def test_widths_of_several_numbers_have_their_name_and_stand_by_their_sum(tmp_path):
    grid = one_grid(tmp_path, {((64, 128), 2): 62.0, ((64, 128), 4): 64.0, (128, 2): 60.0})
    assert told(grid)["1.1"] == [
        "At K = 64-128, best first: L = 4 (64.0 %), L = 2 (62.0 %).",
    ]
    assert told(grid)["2.1"] == [
        "At L = 2, accuracy rises with K: 60.0 % (K = 128), 62.0 % (K = 64-128).",
    ]
    assert [line[3] for line in table(grid)] == ["256,000", "384,000", "768,000"]  # parameters


def test_all_learned(tmp_path):
    grid = one_grid(tmp_path, {(32, 2): 60.0, (32, 4): 61.0})
    assert told(grid)["1.2"] == ["Every training learned."]
    assert "1.3" not in told(grid)
    assert "2.2" not in told(grid)


def test_none_learned(tmp_path):
    grid = one_grid(tmp_path, {(32, 8): FLAT, (32, 16): 10.2, (64, 8): FLAT, (64, 16): FLAT})
    assert told(grid) == {
        "1.2": [
            f"L = 8 and 16 at K = 32 and 64 did not learn: at most 10.2 % validation accuracy, where {GUESSING}.",
            f"Why: {UNKNOWN}",
        ],
    }
    assert summary([grid])[0] == "4 experiments, 4 trainings: 4 did not learn."


def test_a_single_cell_compares_with_nothing(tmp_path):
    grid = one_grid(tmp_path, {(32, 1): 63.2})
    assert told(grid) == {"1.2": ["Every training learned."]}
    assert summary([grid])[0] == (
        "1 experiment, 1 training: 1 learned. "
        "The highest validation accuracy is 63.2 % (K = 32, L = 1), 62.2 % on the test set."
    )


def test_where_the_width_decides_whether_a_network_learns_that_is_said(tmp_path):
    grid = one_grid(tmp_path, {(32, 2): 60.0, (64, 2): 61.0, (32, 8): FLAT, (64, 8): FLAT, (128, 8): 50.0})
    assert told(grid)["2.2"][0] == "At L = 8, width decides what learns."


def test_a_k_of_more_numbers_is_deeper_so_its_effect_is_not_called_that_of_width(tmp_path):
    grid = one_grid(tmp_path, {(32, 2): 60.0, ((32, 64), 2): 65.0, (32, 4): 62.0, ((32, 64), 4): FLAT})
    assert "2.1 How does accuracy change with K, at each depth?" in answers(grid)
    assert told(grid)["2.2"][0] == "At L = 4, K decides what learns."


def test_depth_alone_does_not_decide_where_width_does_at_some_depth(tmp_path):
    cells = {(k, depth): accuracy for k in (32, 64) for depth, accuracy in ((2, [60.0, 61.0]), (8, [FLAT, FLAT]))}
    decides = "What learns is decided by depth, not by width: L = 2 learned at every K, L = 8 at none."
    grid = one_grid(tmp_path, {**cells, (64, 16): [FLAT, FLAT]})  # a depth of one width tells nothing
    assert told(grid)["2.2"][0] == decides
    mixed = {(32, 4): [40.0, FLAT], (64, 4): [FLAT, FLAT]}
    assert "decide" not in " ".join(told(one_grid(tmp_path, {**cells, **mixed}))["2.2"])


# Cells without results


def test_missing_and_failed_cells_are_named_and_claim_nothing(tmp_path):
    files = write_grid(tmp_path, {(32, 2): 60.0, (32, 4): 65.0, (64, 4): FLAT})
    asked = {f"exp_K32_L{depth}": settings(32, depth) for depth in (2, 4, 8, 16)}
    asked |= {"exp_K64_L2": settings(64, 2), "exp_K64_L4": settings(64, 4)}
    (grid,) = load_grids(files, asked, {"exp_K32_L8": "epoch 1: MemoryError: no room"})
    assert told(grid) == {
        "1.1": [
            "At K = 32, best first: L = 4 (65.0 %), L = 2 (60.0 %); L = 8 failed; L = 16 unfinished.",
        ],
        "1.2": [
            f"L = 4 at K = 64 did not learn: at most 10.0 % validation accuracy, where {GUESSING}.",
            f"Why: {UNKNOWN}",
        ],
        "2.2": ["At L = 4, width decides what learns."],
    }
    assert summary([grid])[0] == (
        "6 experiments, 6 trainings: 2 learned, 1 did not learn, 1 failed, 2 unfinished. "
        "The highest validation accuracy is 65.0 % (K = 32, L = 4), 64.0 % on the test set."
    )


def test_cells_that_are_level_with_the_best_are_named(tmp_path):
    grid = one_grid(tmp_path, {(32, 2): 60.0, (32, 4): 60.01, (64, 2): 60.02, (64, 4): 59.0})
    assert summary([grid])[0].endswith(
        "accuracy is 60.0 % (K = 32, L = 2), 59.0 % on the test set; level with it: (K = 32, L = 4), (K = 64, L = 2)."
    )


def test_nothing_but_missing_cells(tmp_path):
    asked = {"exp_K32_L2": settings(32, 2), "exp_K32_L4": settings(32, 4)}
    (grid,) = load_grids([], asked, {"exp_K32_L2": "lost its node"})
    assert told(grid) == {}
    assert summary([grid]) == ["2 experiments, 2 trainings: 1 failed, 1 unfinished."]


def test_one_width_at_a_depth_does_not_tell_that_width_has_no_effect(tmp_path):
    grid = one_grid(tmp_path, {(32, 2): 60.0, (64, 2): 61.0, (32, 8): FLAT})
    assert "2.2" not in told(grid)


def test_a_training_that_diverged_is_neither_compared_nor_called_flat(tmp_path):
    files = write_grid(tmp_path, {(32, 2): 60.0, (32, 4): 62.0})
    broken = history(70.0)._replace(train_loss=[2.0] * 20 + [math.nan] * 20)
    files.append(write(tmp_path, "exp_K32_L8", settings(32, 8), broken, stop_reason="diverged"))
    (grid,) = load_grids(files)
    assert told(grid)["1.1"][0] == "At K = 32, best first: L = 4 (62.0 %), L = 2 (60.0 %); L = 8 diverged."
    assert told(grid)["1.2"] == [
        "L = 8 at K = 32 diverged: a loss was no longer a finite number; a lower lr may help.",
    ]


# Sentences and numbers agree


def test_not_every_training_learned_where_a_seed_did_not(tmp_path):
    grid = one_grid(tmp_path, {(32, 2): [40.0, FLAT, 45.0], (64, 2): [50.0, 51.0, 52.0]})
    assert told(grid)["1.2"] == ["K = 32, L = 2: 2 learned, 1 did not learn."]


def test_what_a_diverged_training_reached_is_not_what_the_others_reached(tmp_path):
    broken = history(70.0)._replace(train_loss=[2.0] * 20 + [math.nan] * 20)
    files = [
        write(tmp_path, "a", settings(32, 2, seed=1), history(FLAT)),
        write(tmp_path, "b", settings(32, 2, seed=2), broken),
        write(tmp_path, "c", settings(64, 2, seed=1), history(50.0)),
        write(tmp_path, "d", settings(64, 4, seed=1), broken),
    ]
    (grid,) = load_grids(files)
    assert told(grid)["1.2"][0].startswith("L = 2 at K = 32 did not learn: at most 10.0 % validation accuracy")
    assert "decides" not in str(told(grid).get("2.2"))
    assert "The highest validation accuracy is 50.0 % (K = 64, L = 2)" in summary([grid])[0]


ACCURACIES = st.lists(st.one_of(st.just(FLAT), st.floats(9, 100)), min_size=1, max_size=3)


@given(st.dictionaries(st.tuples(st.sampled_from([8, 16, 32]), st.integers(1, 3)), ACCURACIES, min_size=1, max_size=6))
@example_settings(max_examples=100, deadline=None)
def test_sentences_never_contradict_the_numbers(accuracies):
    cells = [
        Cell(
            tuple(
                Run((f"{k} {depth} {seed}",), settings(k, depth, seed=seed), history(a))
                for seed, a in enumerate(several)
            )
        )
        for (k, depth), several in sorted(accuracies.items())
    ]
    grid = Grid(tuple(cells))
    lines = [line for lines in answers(grid).values() for line in lines]
    runs = grid.runs
    if any(line.startswith("Every training learned") for line in lines):
        assert all(run.verdict == "learned" for run in runs)
    for line in lines:
        if found := re.search(r"did not learn: at most ([\d.]+) %.* more than ([\d.]+) %", line):
            assert float(found[1]) <= float(found[2])
        if found := re.match(r"At (K = \d+), best first: (L = \d) \(([\d.]+)", line):
            row = [cell for cell in cells if f"K = {cell.level('K')}" == found[1] and cell.state == "learned"]
            assert float(found[3]) == max(round(cell.accuracy.value, 1) for cell in row if cell.accuracy)


# Unfinished trainings


def unfinished(folder: Path, name: str, trial: Settings, accuracy: float, **facts: Any) -> Path:
    return write(folder, name, trial, history(accuracy), stop_reason=None, unfinished=True, **facts)


def test_an_unfinished_training_is_shown_as_it_stands_and_not_compared(tmp_path):
    files = write_grid(tmp_path, {(32, 2): 60.0, (32, 4): FLAT})
    files.append(unfinished(tmp_path, "exp_K32_L8", settings(32, 8), 70.0, test_accuracy=None))
    files.append(unfinished(tmp_path, "exp_K32_L16", settings(32, 16), FLAT, test_accuracy=9.5))
    (grid,) = load_grids(files)
    verdicts = ["learned", "did not learn", "unfinished: 4 of 30 epochs", "unfinished: 4 of 30 epochs"]
    assert [line[-1] for line in table(grid)] == verdicts
    assert [line[6] for line in table(grid)] == ["60.00", "10.00", "70.00", "10.00"]
    assert [line[8] for line in table(grid)] == ["59.00", "9.00", "–", "9.50"]
    assert told(grid)["1.1"] == ["At K = 32, best first: L = 2 (60.0 %); L = 4 did not learn; L = 8 and 16 unfinished."]
    assert told(grid)["1.2"][:1] == [
        f"L = 4 at K = 32 did not learn: at most 10.0 % validation accuracy, where {GUESSING}."
    ]
    assert summary([grid])[0] == (
        "4 experiments, 4 trainings: 1 learned, 1 did not learn, 2 unfinished. "
        "The highest validation accuracy is 60.0 % (K = 32, L = 2), 59.0 % on the test set."
    )
    assert experiments_frame([grid])["verdict"].tolist() == ["learned", "did not learn", "unfinished", "unfinished"]
    assert experiments_frame([grid])["epochs_run"].tolist() == [4] * 4


def test_a_training_that_the_scheduler_stopped_early_is_not_said_not_to_learn(tmp_path):
    files = write_grid(tmp_path, {(32, 2): 60.0})
    files.append(write(tmp_path, "late", settings(32, 4), history(FLAT), stop_reason="scheduler"))
    (grid,) = load_grids(files)
    told = {question[:3]: lines for question, lines in answers(grid).items()}
    assert told["1.1"] == ["At K = 32, best first: L = 2 (60.0 %); L = 4 stopped before it was clear."]
    assert "1.2" not in told


def test_an_unfinished_training_that_failed_says_why(tmp_path):
    trial = settings(32, 2)
    (grid,) = load_grids([unfinished(tmp_path, "a", trial, 30.0)], {"a": trial}, {"a": "lost its node"})
    assert table(grid)[0][-3:] == ["failed: lost its node", "–", "failed: 4 of 30 epochs"]


@pytest.mark.parametrize(("batches", "why"), [(40, "The likely cause is the init"), (8, UNKNOWN)])
def test_too_few_batches_tell_no_cause(tmp_path, batches, why):
    losses = history(FLAT).train_loss[:batches]
    flat = write(tmp_path, "flat", settings(32, 16), history(FLAT)._replace(train_loss=losses))
    (grid,) = load_grids([flat, write(tmp_path, "learned", settings(32, 8), history(60.0))])
    assert why in told(grid)["1.2"][1]


def test_where_the_diagnosis_found_enough_signal_the_initialisation_is_not_blamed(tmp_path):
    flat = write(tmp_path, "flat", settings(32, 16), history(FLAT), diagnosis={"verdict": "trains"})
    (grid,) = load_grids([flat, write(tmp_path, "learned", settings(32, 8), history(60.0))])
    assert told(grid)["1.2"][1] == f"Why: {UNKNOWN}"
    assert "1.3" not in told(grid)


def test_an_unfinished_seed_does_not_count_in_the_mean(tmp_path):
    files = write_grid(tmp_path, {(32, 2): [60.0, 61.0]})
    (grid,) = load_grids([*files, unfinished(tmp_path, "c", settings(32, 2, seed=3), 20.0)])
    assert [table(grid)[0][column] for column in (6, -1)] == ["60.50 ± 6.35", "2 learned, 1 unfinished"]
    assert told(grid)["1.2"] == [
        "Every finished training learned.",
        "K = 32, L = 2: 2 learned, 1 unfinished.",
    ]


def test_a_file_without_accuracies_cannot_be_judged(tmp_path):
    path = write(tmp_path, "a", settings(32, 2), history(60.0)._replace(test_acc=[math.nan] * 4))
    (grid,) = load_grids([path])
    assert told(grid) == {}
    assert table(grid)[0][-1] == "no accuracies"


# Why


def test_a_network_whose_loss_moved_does_get_a_gradient(tmp_path):
    moved = history(FLAT)._replace(train_loss=[2.3] * 10 + [2.1] * 10 + [1.9] * 10 + [1.5] * 10)
    files = [
        write(tmp_path, "a", settings(32, 2), history(60.0)),
        write(tmp_path, "b", settings(32, 8), moved._replace(train_acc=[10.0, 20.0, 40.0, 30.0])),
    ]
    (grid,) = load_grids(files)
    assert told(grid)["1.2"][1:] == [
        "Why: the training loss was between 1.500 and 2.300, and the training accuracy reached 40.0 %; look at lr, reg "
        "and the number of images.",
    ]
    assert "1.3" not in told(grid)


def test_of_your_code_net_the_initialisation_is_not_blamed(tmp_path):
    grid = one_grid(tmp_path, {(32, 2): 60.0, (32, 8): FLAT}, ycn=True)
    assert told(grid)["1.2"][1] == f"Why: {UNKNOWN}"


def test_an_initialisation_for_relu_is_no_remedy_where_it_was_used(tmp_path):
    grid = one_grid(tmp_path, {(32, 2): 60.0, (32, 8): FLAT}, init="he")
    assert told(grid)["1.2"][1] == f"Why: {UNKNOWN}"
    assert "1.3" not in told(grid)


def test_guessing_is_that_of_the_classes_there_are(tmp_path):
    files = [
        write(
            tmp_path, "a", settings(32, 2, data=DataSettings("image_folder", path="/images", classes=4)), history(30.0)
        )
    ]
    (grid,) = load_grids(files)
    assert told(grid)["1.2"][0] == (
        "L = 2 at K = 32 did not learn: at most 30.0 % validation accuracy, where "
        "chance gives 25.0 %, and more than 37.5 % counts as learned."
    )


def test_few_validation_images_tell_no_network_from_luck(tmp_path):
    trial = settings(32, 2, data=DataSettings("image_folder", path="/images", classes=2))
    write(tmp_path, "a", trial, history(90.0, classes=2), images={"train": 29, "validation": 5, "test": 9})
    (grid,) = load_grids([tmp_path / "a.json"])
    assert told(grid)["1.2"][0].endswith("and 5 validation images are too few to tell learning from luck.")


def test_who_always_answers_the_most_frequent_class_has_not_learned(tmp_path):
    trial = settings(32, 2, data=DataSettings("image_folder", path="/images", classes=2))
    write(tmp_path, "a", trial, history(90.0, classes=2), majority_accuracy=90.0)
    write(tmp_path, "b", replace(trial, layers_per_block=4), history(95.0, classes=2), majority_accuracy=90.0)
    (grid,) = load_grids(sorted(tmp_path.glob("*.json")))
    assert [cell.verdict for cell in grid.cells] == ["did not learn", "learned"]
    did_not, why, *_ = told(grid)["1.2"]
    assert did_not == (
        "L = 2 at K = 32 did not learn: at most 90.0 % validation accuracy, where the most frequent class gives "
        "90.0 %, and more than 90.3 % counts as learned."
    )
    assert "guessing" not in why


# What was tried


def test_what_another_network_gave_on_the_cells_that_did_not_learn(tmp_path):
    files = write_grid(tmp_path, {(32, 2): 60.0, (32, 8): FLAT, (64, 8): FLAT, (64, 2): 61.0, (64, 16): FLAT})
    files += write_grid(tmp_path, {(32, 8): 75.2, (64, 8): 77.0, (64, 16): FLAT}, "ycn", ycn=True)
    grid, other = load_grids(files)
    assert grid_names([grid, other]) == ["ConvClassifier", "YourCodeNet"]
    assert told(grid, other)["1.3"] == [
        REMEDIES,
        "Of 3 cells that did not learn with ConvClassifier, 2 learned with YourCodeNet: "
        "75.2 % (K = 32, L = 8), 77.0 % (K = 64, L = 8).",
    ]


@pytest.mark.parametrize(
    ("tried", "line"),
    [
        ({(32, 8): 30.0, (32, 9): 31.0}, "Of 2 cells that did not learn with lr = 0.001, 2 learned with lr = 0.01: "
         "30.0 % (K = 32, L = 8), 31.0 % (K = 32, L = 9)."),
        ({(32, 8): FLAT, (32, 9): FLAT}, "Of 2 cells that did not learn with lr = 0.001, 0 learned with lr = 0.01."),
        ({(32, 8): 30.0}, "Of 1 cell that did not learn with lr = 0.001, 1 learned with lr = 0.01: "
         "30.0 % (K = 32, L = 8)."),
        ({(32, 8): FLAT}, "Of 1 cell that did not learn with lr = 0.001, 0 learned with lr = 0.01."),
        ({(32, 2): 64.0}, "Where both learned, lr = 0.01 differs from lr = 0.001 by +2.0 points "
         "on average (+2.0 to +2.0, 1 cell)."),
        ({(32, 2): 64.0, (32, 4): 60.0}, "Where both learned, lr = 0.01 differs from lr = 0.001 "
         "by -0.5 points on average (-3.0 to +2.0, 2 cells)."),
    ],
)  # fmt: skip
def test_what_another_setting_gave(tmp_path, tried, line):
    files = write_grid(tmp_path, {(32, 2): 62.0, (32, 4): 63.0, (32, 8): FLAT, (32, 9): FLAT})
    files += write_grid(tmp_path, tried, "lr", lr=0.01)
    assert told(*load_grids(files))["1.3"][:2] == [REMEDIES, line]


def test_of_many_variants_only_those_that_differ_least_are_compared(tmp_path):
    files = write_grid(tmp_path, {(32, 2): 62.0, (32, 8): FLAT})
    for reg in range(1, 11):
        files += write_grid(tmp_path, {(32, 8): FLAT}, f"reg{reg}", lr=0.01, reg=reg)
    files += write_grid(tmp_path, {(32, 8): 30.0}, "lr", lr=0.01)
    assert told(*load_grids(files))["1.3"] == [
        REMEDIES,
        "Of 1 cell that did not learn with lr = 0.001, 1 learned with lr = 0.01: 30.0 % (K = 32, L = 8).",
    ]


@pytest.mark.parametrize("ycn", [False, True])
def test_the_ema_that_a_network_has_of_its_own_is_not_denied(tmp_path, ycn):
    grid = one_grid(tmp_path, {(32, 2): 60.0}, ycn=ycn, pool_every=2)
    told = dict(conditions([grid]))["settings"]
    assert ("average 0" in told) == (not ycn)
    assert {"lr 0.001", "pool_every 2", "optimizer adam"} <= {*told.split(", ")}


# Several seeds


@pytest.mark.parametrize(("accuracies", "seeds"), [(60.0, ("seed", "42")), ([60.0, 61.0], ("seeds", "1 and 2"))])
def test_a_single_seed_does_not_read_like_their_number(tmp_path, accuracies, seeds):
    assert seeds in conditions([one_grid(tmp_path, {(32, 2): accuracies})])


def test_with_several_seeds_a_lead_is_held_against_the_noise(tmp_path):
    grid = one_grid(
        tmp_path,
        {
            (32, 2): [62.0, 62.4, 62.2], (32, 4): [66.0, 66.4, 66.5], (32, 8): [FLAT, FLAT, 10.2],
            (64, 2): [63.0, 63.2, 63.7], (64, 4): [63.1, 63.6, 63.5],
        },
    )  # fmt: skip
    assert told(grid)["1.1"] == [
        "At K = 32, best first: L = 4 (66.3 ± 0.7 %), L = 2 (62.2 ± 0.5 %, beyond the noise: 4.1 ± "
        "0.5 points); L = 8 did not learn.",
        "At K = 64, best first: L = 4 (63.4 ± 0.7 %), L = 2 (63.3 ± 0.9 %, within the noise: 0.1 ± 0.7 points).",
    ]
    assert told(grid)["2.1"] == [
        "At L = 2, accuracy rises with K: 62.2 ± 0.5 % (K = 32), 63.3 ± 0.9 % (K = 64). "
        "The largest difference is beyond the noise: 1.1 ± 0.7 points.",
        "At L = 4, accuracy falls with K: 66.3 ± 0.7 % (K = 32), 63.4 ± 0.7 % (K = 64). "
        "The largest difference is beyond the noise: 2.9 ± 0.6 points.",
    ]
    assert told(grid)["2.2"] == [
        "Among the cells that learned, width changes accuracy by up to 2.9 points (at L = 4, from K = 32 to 64), "
        "depth changes accuracy by up to 4.1 points (at K = 32, from L = 2 to 4).",
    ]
    assert summary([grid])[0] == (
        "15 experiments, 15 trainings: 12 learned, 3 did not learn. The highest validation accuracy is "
        "66.3 ± 0.7 % (K = 32, L = 4), 65.3 ± 0.7 % on the test set."
    )


def test_what_is_within_the_noise_of_the_best_is_not_said_to_be_worse(tmp_path):
    grid = one_grid(
        tmp_path, {(32, 1): [50.0, 50.4, 50.2], (32, 2): [65.9, 66.0, 66.4], (32, 4): [66.0, 66.4, 66.5], (32, 8): 66.3}
    )
    assert "The highest validation accuracy is 66.3 ± 0.7 % (K = 32, L = 4), " in summary([grid])[0]
    assert summary([grid])[0].endswith("; within the noise of it: (K = 32, L = 2).")


def test_the_largest_effect_of_a_setting_may_be_noise(tmp_path):
    cells = {(32, 2): [60.0, 64.0], (64, 2): [61.0, 66.0], (32, 4): [80.0, 80.1], (64, 4): [80.2, 80.1]}
    assert told(one_grid(tmp_path, cells))["2.2"] == [
        "Among the cells that learned, width changes accuracy by up to 1.5 points (at L = 2, from K = 32 to 64, within "
        "the noise), depth changes accuracy by up to 18.0 points (at K = 32, from L = 2 to 4, within the noise)."
    ]


def test_of_three_depths_some_may_be_noise_and_some_not(tmp_path):
    grid = one_grid(tmp_path, {(32, 1): [50.0, 50.4, 50.2], (32, 2): [65.9, 66.0, 66.4], (32, 4): [66.0, 66.4, 66.5]})
    assert told(grid)["1.1"] == [
        "At K = 32, best first: L = 4 (66.3 ± 0.7 %), L = 2 (66.1 ± 0.7 %, within the noise: 0.2 ± "
        "0.6 points), L = 1 (50.2 ± 0.5 %, beyond the noise: 16.1 ± 0.5 points)."
    ]


@pytest.mark.parametrize(
    ("accuracies", "sentence"),
    [
        (
            ([60.0, 61.0, 62.0], [60.5, 61.5, 62.5], [60.2, 61.2, 62.2]),
            "The largest difference is within the noise: 0.5 ± 2.3 points.",
        ),
        (
            ([60.0, 60.1, 60.2], [61.0, 61.1, 61.2], [62.0, 62.1, 62.2]),
            "The largest difference is beyond the noise: 2.0 ± 0.2 points.",
        ),
    ],
)
def test_a_trend_is_held_against_the_noise(tmp_path, accuracies, sentence):
    cells = {(k, 2): several for k, several in zip((32, 64, 128), accuracies, strict=False)}
    assert told(one_grid(tmp_path, cells))["2.1"][0].endswith(f". {sentence}")


def test_a_cell_with_a_single_run_among_others_is_said_to_tell_nothing_of_noise(tmp_path):
    grid = one_grid(
        tmp_path, {(32, 2): [60.0, 61.0, 62.0], (32, 4): 64.0, (64, 2): [50.0, 51.0], (64, 4): [58.2, 58.9]}
    )
    assert told(grid)["1.1"][0].startswith("At K = 32, best first: L = 4 (64.0 %), L = 2 (61.0 ± 2.5 %).")
    assert summary([grid])[1].startswith(
        "This report cannot tell whether a difference between networks that were trained once"
    )


def test_a_cell_that_learned_with_some_seeds_only_says_so(tmp_path):
    grid = one_grid(tmp_path, {(32, 2): [60.0, 61.0, 62.0], (32, 8): [40.0, FLAT, 45.0], (32, 16): [FLAT, FLAT, FLAT]})
    assert told(grid)["1.1"] == [
        "At K = 32, best first: L = 2 (61.0 ± 2.5 %), L = 8 (31.7 ± 47.0 %, 2 learned, 1 did not "
        "learn, within the noise: 29.3 ± 46.8 points); L = 16 did not learn."
    ]
    assert told(grid)["1.2"][0].startswith("L = 16 at K = 32 did not learn: ")
    assert told(grid)["1.2"][2] == "K = 32, L = 8: 2 learned, 1 did not learn."


def test_table_has_mean_and_interval_of_the_seeds(tmp_path):
    grid = one_grid(tmp_path, {(32, 2): [60.0, 61.0, 62.0], (32, 8): [FLAT, 40.0, FLAT]})
    assert table(grid) == [
        ["exp_K32_L2 (seeds 1, 2, 3)", "32", "2", "64,000", "64.0 M", "4", "61.00 ± 2.48", "3", "60.00 ± 2.48",
         "2 min 0 s", "stopped early: no better for 5 epochs", "–", "learned"],
        ["exp_K32_L8 (seeds 1, 2, 3)", "32", "8", "256,000", "256.0 M", "4", "20.00 ± 43.03", "3",
         "19.00 ± 43.03", "8 min 0 s", "stopped early: no better for 5 epochs", "–", "2 did not learn, 1 learned"],
    ]  # fmt: skip


# What was expected


def expecting(folder: Path, cells: dict[tuple[int, int], tuple[float, str, float]]) -> Grid:
    """The grid of cells of (accuracy, verdict of the diagnosis, spread of the scores)."""
    files = []
    for (k, depth), (accuracy, verdict, spread) in cells.items():
        diagnosis = {"verdict": verdict, "score_spread": spread, "remedies": []}
        trial = settings(k, depth)
        files.append(write(folder, f"exp_{trial.label}", trial, history(accuracy), diagnosis=diagnosis))
    (grid,) = load_grids(files)
    return grid


def test_what_was_expected_stands_beside_what_happened(tmp_path):
    grid = expecting(
        tmp_path,
        {
            (32, 2): (65.0, "trains", 3e-3),
            (32, 4): (61.0, "at risk", 2.4e-4),
            (32, 8): (FLAT, "will not learn", 8.1e-6),
            (64, 8): (FLAT, "at risk", 1e-4),
        },
    )
    assert [line[-2:] for line in table(grid)] == [
        ["trains", "learned"], ["at risk", "learned"],
        ["will not learn", "did not learn"], ["at risk", "did not learn"],
    ]  # fmt: skip
    assert expectations(grid) == ["The diagnosis before the training was right on 2 of 2 trainings."]
    weak = (
        "Before the training, the scores of different images differed by at most 1.0e-04 in the networks that did not "
        "learn, and by at least 2.4e-04 in those that learned."
    )
    assert weak_signal(grid) == [weak]
    assert not_learned(grid)[-2:] == [weak, *expectations(grid)]


def test_wrong_expectations_are_told(tmp_path):
    grid = expecting(
        tmp_path,
        {(32, 2): (65.0, "will not learn", 1e-6), (32, 4): (FLAT, "trains", 1e-3), (32, 8): (FLAT, "trains", 1e-3)},
    )
    assert expectations(grid) == [
        "The diagnosis before the training was right on 0 of 3 trainings, and wrong on L = 2, 4 and 8 at K = 32."
    ]
    assert weak_signal(grid) == []


def test_where_all_was_at_risk_nothing_was_right_or_wrong(tmp_path):
    grid = expecting(tmp_path, {(32, 4): (65.0, "at risk", 1e-4)})
    assert expectations(grid) == weak_signal(grid) == []


@pytest.mark.parametrize("diagnosis", [None, 7, {}, {"verdict": ["trains"], "score_spread": "much"}])
def test_without_a_diagnosis_nothing_was_expected(tmp_path, diagnosis):
    facts = {} if diagnosis is None else {"diagnosis": diagnosis}
    (grid,) = load_grids([write(tmp_path, "exp_K32_L2", settings(32, 2), history(60.0), **facts)])
    assert table(grid)[0][-2] == "–"
    assert expectations(grid) == weak_signal(grid) == []


def test_what_was_expected_of_several_seeds(tmp_path):
    files = [
        write(tmp_path, f"exp_S{seed}", settings(32, 2, seed=seed), history(60.0), diagnosis={"verdict": verdict})
        for seed, verdict in enumerate(["at risk", "trains", "trains"])
    ]
    (grid,) = load_grids(files)
    assert grid.cells[0].expected == "2 trains, 1 at risk"


# Files and cells


def test_experiments_that_share_a_training_are_one_run_with_two_names(tmp_path):
    files = write_grid(tmp_path, {(32, 2): 60.0}, "one") + write_grid(tmp_path, {(32, 2): 60.0}, "two")
    (grid,) = load_grids(files)
    assert [run.names for cell in grid.cells for run in cell.runs] == [("one_K32_L2", "two_K32_L2")]
    assert table(grid)[0][0] == "one_K32_L2, two_K32_L2"
    assert summary([grid])[0].startswith("2 experiments, 1 training: 1 learned.")


def test_equal_settings_with_other_curves_are_two_runs(tmp_path):
    files = [
        write(tmp_path, "a", settings(32, 2), history(60.0)),
        write(tmp_path, "b", settings(32, 2), history(61.0)),
        write(tmp_path, "c", settings(32, 2), history(60.0)),
    ]
    (grid,) = load_grids(files)
    assert [run.names for run in grid.runs] == [("a", "c"), ("b",)]
    assert [table(grid)[0][column] for column in (0, 6)] == ["a, c, b", "60.50 ± 6.35"]


def foreign(folder: Path, stem: str, accuracy: float, kw: dict[str, Any] | None = None, **keys: Any) -> Path:
    """A result file with the config keys of another program."""
    path = write(folder, stem, settings(32, 8), history(accuracy))
    content = json.loads(path.read_text())
    content["config"] |= {**keys, "kw": kw or {}}
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ({"model_type": "cnn"}, {"model_type": "resnet"}, ["model_type = cnn", "model_type = resnet"]),
        ({}, {"model_type": "resnet"}, ["model_type = none", "model_type = resnet"]),
        ({"kw": {"dropout": 0.5}}, {"kw": {}}, ["dropout = 0.5", "dropout = none"]),
        ({"kw": {"dropout": 0.5}}, {"dropout": 0.1}, ["dropout = 0.5", "dropout = 0.1"]),
        (
            {"kw": {"block": {"kernel": 3, "skip": True}}},
            {"kw": {"block": {"kernel": 5, "skip": True}}},
            ["block.kernel = 3", "block.kernel = 5"],
        ),
        ({"kernels": [3, 3]}, {"kernels": [5, 3]}, ["kernels = 3-3", "kernels = 5-3"]),
        ({"kw": {"optimizer": "RMSprop"}}, {}, ["optimizer = RMSprop", "optimizer = adam"]),
        ({"kw": {"data": "imagenet"}}, {}, ["data = imagenet", "data = none"]),
        ({"kw": "fast"}, {}, ["kw = fast", "kw = none"]),
        ({"lr": "auto"}, {}, ["lr = auto", "lr = 0.001"]),
        ({"early_stopping": 0}, {}, ["early_stopping = 0", "early_stopping = 5"]),
    ],
)
def test_keys_of_other_programs_tell_experiments_apart(tmp_path, first, second, names):
    (grid,) = load_grids([foreign(tmp_path, "a", 60.0, **first), foreign(tmp_path, "b", FLAT, **second)])
    assert {cell.label: cell.runs[0].names for cell in grid.cells} == {names[0]: ("a",), names[1]: ("b",)}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"kw": {"optimizer": "Adam"}}, {"kw": {"optimizer": "adam"}}),
        ({"optimizer": "Adam"}, {}),
        ({"note": None}, {}),
        ({"dropout": 1}, {"dropout": 1.0}),
        ({"kw": {"block": {"kernel": 3, "skip": True}}}, {"kw": {"block": {"skip": True, "kernel": 3}}}),
        ({"name": "a", "log_dir": "logs/a"}, {"name": "b", "log_dir": "logs/b"}),
    ],
)
def test_other_spellings_of_the_same_conditions_are_one_grid(tmp_path, first, second):
    (grid,) = load_grids([foreign(tmp_path, "a", 60.0, **first), foreign(tmp_path, "b", 61.0, **second)])
    assert len(grid.runs) == 2


def test_a_name_with_a_dot_is_no_condition(tmp_path):
    (grid,) = load_grids([foreign(tmp_path, f"lr_{lr}", 60 + lr, exp_name=f"lr_{lr}", lr=lr) for lr in (0.1, 0.01)])
    assert [cell.label for cell in grid.cells] == ["lr = 0.01", "lr = 0.1"]


def test_of_a_file_without_a_config_the_name_tells_the_cell(tmp_path):
    path = write(tmp_path, "exp1_1_K64-128_L4", settings(32, 8), history(60.0))
    path.write_text(json.dumps({"results": json.loads(path.read_text())["results"]}))
    (grid,) = load_grids([path])
    assert [cell.label for cell in grid.cells] == ["K = 64-128, L = 4"]


def test_of_a_network_that_is_not_ours_neither_name_nor_cause_is_claimed(tmp_path):
    (grid,) = load_grids(
        [foreign(tmp_path, "a", FLAT, model_type="mlp"), foreign(tmp_path, "b", 60.0, model_type="cnn")]
    )
    assert not re.search("PyTorch|ConvClassifier", f"{told(grid)}{conditions([grid])}")
    assert told(grid)["1.1"] == ["Best first: model_type = cnn (60.0 %); model_type = mlp did not learn."]


def test_trainings_without_a_seed_are_different_runs(tmp_path):
    trial = settings(32, 2, seed=None)
    files = [
        write(tmp_path, "a", trial, history(60.0)),
        write(tmp_path, "b", trial, history(61.0)._replace(train_loss=[1.0] * 40)),
    ]
    (grid,) = load_grids(files)
    assert grid.cells[0].accuracies == [60.0, 61.0]


def test_what_was_asked_for_and_is_there_is_one_cell(tmp_path):
    source = DataSettings("image_folder", path=str(tmp_path), classes=10, fingerprint="f00")
    trial = settings(32, 2, data=source)
    (grid,) = load_grids([write(tmp_path, "a", trial, history(60.0))], {"a": trial, "b": replace(trial, seed=1)})
    assert [cell.verdict for cell in grid.cells] == ["1 unfinished, 1 learned"]


@pytest.mark.parametrize(
    ("theirs", "as_ours"),
    [
        ({"filters_per_layer": 32, "hidden_dims": 100}, {"filters_per_layer": [32], "hidden_dims": [100]}),
        ({"filters_per_layer": "[32]", "layers_per_block": "2", "ycn": "True"}, {"ycn": True}),
        ({"ycn": 1, "lr": "1e-3", "bs_train": 50.0}, {"ycn": True, "lr": 0.001, "bs_train": 50}),
        ({"early_stopping": 0, "pool_every": 2.5, "seed": -1}, {}),
    ],
)
def test_settings_are_read_as_others_write_them(tmp_path, theirs, as_ours):
    path = write(tmp_path, "theirs", settings(32, 2), history(60.0))
    content = json.loads(path.read_text())
    content["config"] |= theirs
    path.write_text(json.dumps(content))
    (grid,) = load_grids([path])
    (run,) = grid.runs
    assert (run.settings.filters_per_layer, run.settings.layers_per_block) == ((32,), 2)
    assert {key: run.settings.to_json()[key] for key in as_ours} == as_ours
    assert as_ours or run.conditions | {"early_stopping": "0", "pool_every": "2.5", "seed": "-1"} == run.conditions


def test_damaged_and_foreign_files_are_left_out_and_named(tmp_path, capsys):
    files = write_grid(tmp_path, {(32, 2): 60.0})
    (tmp_path / "broken.json").write_text("{")
    foreign = write(tmp_path, "foreign", settings(32, 8), history(60.0))
    foreign.write_text(foreign.read_text().replace('"layers_per_block": 8', '"layers_per_block": "eight"'))
    (grid,) = load_grids([*files, tmp_path / "broken.json", foreign])
    assert [cell.label for cell in grid.cells] == ["K = 32, L = 2"]
    left_out = capsys.readouterr().err.splitlines()
    assert left_out[0].startswith(f"Left out: {tmp_path}/broken.json: damaged (")
    assert "layers_per_block: 'eight' is not a whole number from 1 up" in "".join(left_out[1:])


def test_other_readings_of_a_setting_are_not_tried_when_the_first_will_do(tmp_path, monkeypatch):
    files = write_grid(tmp_path, {(32, 2): 60.0, (32, 4): 61.0})
    monkeypatch.setattr(TypeAdapter, "json_schema", lambda _: pytest.fail("a fault was told, which takes milliseconds"))
    assert len(load_grids(files)[0].cells) == 2


def test_a_notebooks_file_without_our_facts_is_reported(tmp_path):
    path = write(tmp_path, "exp1_1_K32_L2", settings(32, 2), history(60.0))
    content = json.loads(path.read_text())
    del content["trial"]
    path.write_text(json.dumps(content))
    (grid,) = load_grids([path])
    assert table(grid) == [
        ["exp1_1_K32_L2", "32", "2", "–", "–", "4", "60.00", "3", "–", "–", "–", "–", "learned"],
    ]  # fmt: skip
    assert summary([grid])[0].endswith("The highest validation accuracy is 60.0 % (K = 32, L = 2).")


@pytest.mark.parametrize(
    ("seconds", "text"), [(18.52, "18.5 s"), (99.96, "1 min 40 s"), (185, "3 min 5 s"), (9000, "2 h 30 min")]
)
def test_times_read_well(seconds, text):
    assert duration(seconds) == text


def test_lists_and_places_read_well(tmp_path):
    assert [listed("a"), listed("ab"), listed("abc")] == ["a", "a and b", "a, b and c"]
    grid = one_grid(tmp_path, {(32, 2): 60.0, (64, 2): 60.0, (32, 4): 60.0, (64, 4): 60.0, (64, 8): 60.0})
    assert places(grid.cells) == "L = 2 and 4 at K = 32 and 64, and L = 8 at K = 64"


# Noise


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423), (120, 1.9799), (1e6, 1.95996)],
)
def test_t_quantiles_are_those_of_the_printed_tables(freedom, t):
    assert t_quantile(freedom) == pytest.approx(t, abs=5e-5)


def test_mean_has_students_interval():
    assert mean([]) is None
    assert mean([61.0]) == (61.0, None)
    assert mean([60.0, 61.0, 62.0]) == pytest.approx((61.0, 4.302653 / math.sqrt(3)))


def test_difference_is_welchs():
    # Equal variances of 1: 4 degrees of freedom. One variance of 0: those of the other, 2.
    assert difference([60.5, 61.5, 62.5], [60, 61, 62]) == pytest.approx((0.5, 2.26696), abs=1e-4)
    assert difference([2.0, 3.0, 4.0], [1.0, 1.0, 1.0]) == pytest.approx((2.0, 2.48414), abs=1e-4)
    assert difference([2.0, 2.0], [1.0, 1.0]) == (1.0, 0)  # no spread at all
    assert difference([1.0], [2.0, 3.0]) is None


@given(st.lists(st.floats(0, 100), min_size=2, max_size=6), st.lists(st.floats(0, 100), min_size=2, max_size=6))
@example_settings(deadline=None)
def test_a_difference_is_the_same_the_other_way_round(a, b):
    there, back = difference(a, b), difference(b, a)
    assert there is not None
    assert back is not None
    assert (there.value, there.margin) == pytest.approx((-back.value, back.margin), abs=1e-6)
    assert there.is_noise == back.is_noise
