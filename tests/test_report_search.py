"""The report of a search: its ranking, figures and sentences, from result files."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tune_cnn.experiments import experiment_config
from tune_cnn.report import write_report
from tune_cnn.report.figure_files import write_figures
from tune_cnn.report.runs import read_run
from tune_cnn.report.search import _progress_figure, write_search_figure
from tune_cnn.result_files import save_experiment
from tune_cnn.settings import Settings
from tune_cnn.train_results import FitResult

SEARCH = {
    "lr": {"loguniform": [1e-4, 1e-2]},
    "filters_per_layer": {"choice": [[8], [8, 16], [16]]},
    "layers_per_block": {"randint": [1, 5]},
}


def write(
    folder: Path,
    name: str,
    accuracy: float,
    epochs: int = 4,
    reason: str = "epochs",
    search: Any = SEARCH,
    **settings: Any,
) -> Path:
    """A result file of one sample, whose validation accuracy rises to `accuracy`."""
    made = Settings(**{"seed": 1, "epochs": 4, "early_stopping": None, **settings})
    curve = [accuracy * (epoch + 1) / epochs for epoch in range(epochs)]
    history = FitResult(epochs, [1.0] * epochs, curve, [1.0] * epochs, curve)
    facts = {
        "stop_reason": reason,
        "test_accuracy": accuracy - 1,
        "duration_s": 1.0,
        **({"search": search} if search else {}),
    }
    save_experiment(folder / f"{name}.json", experiment_config(name, folder, made), history, facts)
    return folder / f"{name}.json"


@pytest.fixture
def samples(tmp_path: Path) -> list[Path]:
    """Twelve samples, of which those with a small learning rate are the best, and one in four was stopped."""
    return [
        write(
            tmp_path,
            f"s_{number:03}",
            80.0 - 4 * number,
            epochs=2 if number % 4 == 3 else 4,
            reason="scheduler" if number % 4 == 3 else "epochs",
            lr=1e-4 * (1 + number**2),
            filters_per_layer=((8,), (8, 16), (16,))[number % 3],
            layers_per_block=2 if number < 5 else 3,
        )
        for number in range(12)
    ]


def report(samples: list[Path]) -> dict[str, str]:
    folder = samples[0].parent
    return {path.suffix: path.read_text() for path in write_report("s", samples, folder)}


def test_samples_are_ranked_with_every_setting_that_varies(samples):
    lines = report(samples)[".md"].partition("## Ranking\n")[2].strip().splitlines()
    assert lines[0].startswith(
        "| rank | experiment | lr | K | L | epochs | best val. acc. (%) | test acc. (%) | time |"
    )
    assert lines[2].startswith("| 1 | s_000 | 0.0001 | 8 | 2 | 4 | 80.00 | 79.00 |")
    assert lines[3].startswith("| 2 | s_001 | 0.0002 | 8-16 | 2 | 4 | 76.00 | 75.00 |")
    assert "| stopped by the scheduler after 2 of 4 epochs |" in lines[5]
    assert len(lines[2:]) >= 12


def test_what_was_spent_and_saved_is_told(samples):
    text = report(samples)[".md"]
    assert "The search spent 42 of the 48 epochs that its trainings could have had." in text
    assert "The scheduler stopped 3 trainings, 6 epochs early." in text


def test_a_sample_that_the_scheduler_stopped_early_is_not_said_not_to_learn(tmp_path):
    files = [
        write(tmp_path, "s_0", 60.0, lr=1e-3),
        write(tmp_path, "s_1", 12.0, epochs=2, reason="scheduler", lr=1e-4),
    ]
    text = report(files)[".md"]
    assert "2 trainings: 1 learned, 1 stopped before it was clear. " in text
    assert "| stopped by the scheduler after 2 of 4 epochs | stopped before it was clear |" in text
    assert "A network that the scheduler stopped may yet learn: tune-cnn sweep --finish continues it." in text


def test_a_grid_beside_a_search_keeps_its_map_and_its_table(tmp_path):
    search = {"reg": {"loguniform": [1e-5, 1e-2]}}
    samples = [write(tmp_path, f"s_{n:03}", 80.0 - n, search=search, reg=1e-5 * (1 + n)) for n in range(12)]
    text = report([*samples, write(tmp_path, "grid", 30.0, search=None, reg=0.0)])[".md"]
    assert text.index("## Map") < text.index("## Ranking") < text.index("## Results") < text.index("| grid |")
    assert "| 12 | s_011 |" in text
    assert "| 13 |" not in text


def test_the_best_so_far_is_what_the_epochs_up_to_there_reached(tmp_path):
    runs = [read_run(write(tmp_path, f"s_{n}", top, epochs=2)) for n, top in enumerate((40.0, 80.0))]
    line = _progress_figure(runs).axes[0].lines[0]
    assert list(line.get_xdata()) == [1, 2, 3, 4]
    assert list(line.get_ydata()) == [20.0, 40.0, 40.0, 80.0]


def test_only_what_ended_with_a_final_accuracy_has_a_rank(tmp_path):
    files = [write(tmp_path, "s_0", 50.0, lr=1e-3), write(tmp_path, "s_1", 60.0, reason="diverged", lr=1e-1)]
    asked = {"s_2": Settings(seed=1, epochs=4, lr=0.5)}
    write_report("s", files, tmp_path, asked=asked, failures={"s_2": "epoch 2: RuntimeError"})
    ranks = re.findall(r"^\| (\S+) \| (s_\d) \|", (tmp_path / "s_report.md").read_text(), re.MULTILINE)
    assert ranks == [("1", "s_0"), ("–", "s_1"), ("–", "s_2")]


def test_samples_of_several_seeds_are_ranked_by_their_mean_and_not_by_their_luckiest_seed(tmp_path):
    reached = {"s_0": (0.1, [70.0, 50.0]), "s_1": (0.2, [66.0, 65.0])}
    files = [
        write(tmp_path, f"{name}_S{seed}", accuracy, lr=lr, seed=seed)
        for name, (lr, accuracies) in reached.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    lines = report(files)[".md"].partition("## Ranking\n")[2].strip().splitlines()
    assert lines[2].startswith("| 1 | s_1 (seeds 0, 1) | 0.2 | 64 | 2 | 4 | 65.50 ± 6.35 |")
    assert lines[3].startswith("| 2 | s_0 (seeds 0, 1) | 0.1 |")


def test_the_lead_of_the_best_sample_may_be_luck(samples):
    text = report(samples)[".md"]
    assert "This report cannot tell whether a difference between networks that were trained once" in text
    assert "the test accuracy is the one to quote" in text


def test_a_batch_size_of_the_validation_that_follows_from_the_other_is_not_named(tmp_path):
    files = [
        write(tmp_path, f"s_{n}", n / 2, bs_train=n, search={"bs_train": {"choice": [16, 128]}}) for n in (16, 128)
    ]
    assert "bs_test = " not in report(files)[".md"]


def test_values_can_be_read_from_the_figure_of_a_search(tmp_path):
    search = {"lr": {"loguniform": [1e-3, 1e-1]}, "bs_train": {"choice": [16, 32, 1024]}}
    drawn = [(0.0025, 16), (0.045, 32), (0.01, 1024)]
    files = [write(tmp_path, f"s_{n}", 60.0 + n, search=search, lr=lr, bs_train=bs) for n, (lr, bs) in enumerate(drawn)]
    (figure,) = write_search_figure("s", files, tmp_path, "svg")
    texts = re.findall("<!-- (.*?) -->", figure.read_text())
    assert {"0.005", "0.01", "0.02"} <= set(texts)
    assert {"16", "32", "1024"} <= set(texts)  # with room for each, as they are categories


def test_samples_of_one_accuracy_stand_in_the_order_of_their_numbers(tmp_path):
    text = report([write(tmp_path, f"s_{n}", 40.0, lr=n / 1000) for n in (16, 4)])[".md"]
    assert text.index("| s_4 |") < text.index("| s_16 |")


@pytest.mark.parametrize("search", [["lr"], "lr", {"lr": 0.1}])
def test_a_sample_whose_distributions_are_malformed_is_reported_beside_the_others(samples, search):
    odd = write(samples[0].parent, "s_100", 5.0, search=search, lr=1e-3)
    assert all("s_100" in content for content in report([*samples, odd]).values())


def test_the_page_has_a_panel_for_each_setting_and_no_map(samples):
    page = report(samples)[".html"]
    assert page.count("<svg") == 4  # three settings, and the best so far
    assert "Map" not in page
    assert "stopped by the scheduler" in page


def test_a_search_has_one_figure_and_a_grid_has_none_of_it(samples, tmp_path):
    folder = samples[0].parent
    assert write_figures(samples, folder) == []
    (figure,) = write_search_figure("s", samples, folder)
    assert figure == folder / "s_search.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert write_search_figure("none", [], folder) == []


def test_samples_that_failed_or_have_not_begun_are_ranked_last(samples):
    folder = samples[0].parent
    common = Settings(seed=1, epochs=4, early_stopping=None, filters_per_layer=(8,))
    asked = {"s_012": replace(common, lr=0.5), "s_013": replace(common, lr=0.6)}
    write_report("s", samples, folder, asked=asked, failures={"s_013": "epoch 1: RuntimeError"})
    text = (folder / "s_report.md").read_text()
    assert "| – | s_012 | 0.5 | 8 | 2 | – | – | – | – | unfinished: 0 of 4 epochs |" in text
    assert "failed: epoch 1: RuntimeError" in text


def test_the_page_of_many_samples_stays_small(tmp_path):
    samples = [write(tmp_path, f"s_{n:03}", 20 + n / 4, lr=1e-4 * (1 + n)) for n in range(200)]
    page = report(samples)[".html"]
    assert "s_199" in page
    assert len(page) < 2_000_000


def test_a_custom_network_that_failed_is_counted_once(tmp_path):
    model = {"model": "nets.py:WideNet", "seed": 1, "epochs": 4, "early_stopping": None}
    files = [write(tmp_path, "w_4", 50.0, search=None, model=model["model"], model_args={"width": 4})]
    asked = {f"w_{width}": Settings(**model, model_args={"width": width}) for width in (4, 8)}
    write_report("w", files, tmp_path, asked=asked, failures={"w_8": "epoch 1: RuntimeError"})
    text = (tmp_path / "w_report.md").read_text()
    assert "2 trainings: 1 learned, 1 failed." in text
    assert len(re.findall(r"^\| w_8 ", text, re.MULTILINE)) == 1


def test_a_grid_over_other_settings_than_k_and_l_has_them_as_its_axes(tmp_path):
    files = [
        write(
            tmp_path, f"w_{width}", accuracy, search=None, model="nets.py:WideNet", model_args={"width": width}
        )
        for width, accuracy in ((16, 56.0), (4, 10.0), (32, 72.0))
    ]  # fmt: skip
    told = report(files)
    assert "The highest validation accuracy is 72.0 % (model_args.width = 32)" in told[".md"]
    assert "| | model_args.width = 4 | model_args.width = 16 | model_args.width = 32 |" in told[".md"]
    assert "|  | 10.0 (did not learn) | 56.0 | 72.0 |" in told[".md"]
    assert (
        "### 1.1 Which model_args.width is best?\n\n- Best first: model_args.width = 32 (72.0 %), "
        "model_args.width = 16 (56.0 %); model_args.width = 4 did not learn.\n"
    ) in told[".md"]
    assert "- Why: the training loss was between 1.000 and 1.000, and" in told[".md"]
    assert "- Accuracy rises with model_args.width: 56.0 %" in told[".md"]
    assert "pool_every" not in told[".md"]  # which such a network may not take
    assert [line.partition(",")[0] for line in told[".csv"].splitlines()] == ["experiment", "w_4", "w_16", "w_32"]
    assert write_search_figure("w", files, tmp_path) == []
    (figure,) = write_figures(files, tmp_path, "svg")
    curves = re.findall(r"<!-- (model_args.*?) -->", figure.read_text())
    assert [curve.partition(" (")[0] for curve in curves] == [f"model_args.width = {width}" for width in (4, 16, 32)]
    page = told[".html"]
    assert "<figcaption>w: model_args.width varies</figcaption>" in page
    assert re.findall(r"<span[^>]*>(model_args[^<]+)</span>", page.replace("\xa0", " ")) == curves


def test_a_grid_of_two_other_settings_is_a_map_of_them(tmp_path):
    rates = {(0.001, 0.0): 60.0, (0.001, 0.1): 50.0, (0.01, 0.0): 70.0, (0.01, 0.1): 10.0}
    files = [write(tmp_path, f"g_{lr}_{reg}", top, search=None, lr=lr, reg=reg) for (lr, reg), top in rates.items()]
    text = report(files)[".md"]
    assert "| | lr = 0.001 | lr = 0.01 |\n| --- | --: | --: |\n| reg = 0 | 60.0 | 70.0 |\n" in text
    assert "- At lr = 0.01, best first: reg = 0 (70.0 %); reg = 0.1 did not learn." in text
    assert "- At reg = 0.1, lr decides what learns." in text
