"""What the report says of the classes that are taken for others: crafted results in, exact sentences out."""

from pathlib import Path
from typing import Any

import pytest
from crafted_results import history, settings, write

from tune_cnn.report.grids import load_grids
from tune_cnn.report.page import markdown, page
from tune_cnn.report.sentences_learning import confusions

NAMES = ["cat", "dog", "ship"]


def told(folder: Path, *matrices: Any, accuracy: float = 60.0, names: Any = NAMES) -> list[str]:
    """Of one cell, with a run for each matrix."""
    files = [
        write(
            folder, f"exp_S{seed}", settings(32, 2, seed=seed), history(accuracy), confusion=matrix, class_names=names
        )
        for seed, matrix in enumerate(matrices)
    ]
    (grid,) = load_grids(files)
    return confusions(grid)


def test_the_three_most_frequent_confusions_are_named(tmp_path):
    lines = told(tmp_path, [[70, 20, 10], [12, 82, 6], [1, 0, 99]])
    assert lines == ["K = 32, L = 2: takes 20 % of cat for dog, 12 % of dog for cat and 10 % of cat for ship."]


def test_each_class_counts_by_its_own_images(tmp_path):
    assert told(tmp_path, [[900, 40, 60], [5, 5, 0], [0, 0, 0]]) == [
        "K = 32, L = 2: takes 50 % of dog for cat and 6 % of cat for ship."
    ]


def test_seeds_are_added_up(tmp_path):
    lines = told(tmp_path, [[10, 0, 0], [0, 10, 0], [0, 0, 10]], [[8, 2, 0], [0, 10, 0], [0, 0, 10]])
    assert lines == ["K = 32, L = 2: takes 10 % of cat for dog."]


def test_a_network_that_did_not_learn_confuses_everything_which_needs_no_line(tmp_path):
    assert told(tmp_path, [[10, 0, 0], [10, 0, 0], [10, 0, 0]], accuracy=10.0) == []


def test_a_network_that_confuses_nothing_has_no_line(tmp_path):
    assert told(tmp_path, [[100, 0, 0], [0, 96, 4], [0, 0, 100]]) == []


@pytest.mark.parametrize(
    "matrix", [None, [], 5, "abc", [[1, 2], [3, 4]], [[1, 2, 3], [4, 5, 6], [7, 8]], [[0, 9, -9], [0, 0, 0], [0, 0, 0]],
               [[1, 2, None], [1, 2, 3], [1, 2, 3]], [["9", "0", "0"], [1, 2, 3], [1, 2, 3]]],
)  # fmt: skip
def test_a_file_that_tells_no_confusions_has_no_line(tmp_path, matrix):
    assert told(tmp_path, matrix) == []


def test_page_and_markdown_have_the_lines(tmp_path):
    path = write(
        tmp_path, "exp", settings(32, 2), history(60.0), confusion=[[7, 3], [0, 10]], class_names=["<b>", "a*b*"]
    )
    grids = load_grids([path])
    title = "Confusions on the test set"
    assert f"<h2>{title}</h2>" in page("exp", grids)
    assert "of &lt;b&gt; for a*b*." in page("exp", grids)
    assert f"## {title}\n\n- K = 32, L = 2: takes 30 % of \\<b\\> for a\\*b\\*.\n" in markdown(
        "exp", grids, [], tmp_path
    )
