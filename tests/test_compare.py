"""Sweeps side by side."""

from pathlib import Path

import pytest

from tune_cnn.cli import main
from tune_cnn.report.compare import compare
from tune_cnn.report.runs import Run
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.train_results import FitResult


def history(accuracy: float) -> FitResult:
    return FitResult(1, [1.0], [accuracy], [1.0], [accuracy])


def run(accuracy: float | None, **settings: object) -> Run:
    made = Settings(**{"data": DataSettings("shapes"), **settings})
    return Run((made.label,), made, None if accuracy is None else history(accuracy))


def test_cells_are_told_apart_by_what_varies_within_a_sweep():
    before = [run(60.0, layers_per_block=1), run(50.0, layers_per_block=2)]
    after = [run(61.5, layers_per_block=1, init="he"), run(50.0, layers_per_block=2, init="he")]
    found = compare({"before": before, "after": after})
    assert found.rows == [
        ["L", "before", "after", "after - before"],
        ["1", "60.00", "61.50", "+1.50"],
        ["2", "50.00", "50.00", "same"],
    ]
    assert found.best == "best validation accuracy in %: before 60.00 (K64_L1), after 61.50 (K64_L1)"
    assert found.settings == ["init: default in before, he in after"]
    assert found.changed == 1


def test_cells_stand_in_the_order_of_their_values_whichever_sweep_has_them():
    found = compare({"a": [run(60.0, layers_per_block=16)], "b": [run(61.0, layers_per_block=n) for n in (16, 2)]})
    assert [row[0] for row in found.rows] == ["L", "2", "16"]


def test_what_follows_from_another_setting_is_not_told_beside_it():
    runs = [run(60.0, model=f"nets.py:{name}", model_fingerprint=name) for name in ("A", "B")]
    assert compare({"a": runs, "b": runs}).rows[0] == ["model", "a", "b", "b - a"]
    assert compare({"a": [run(60.0, bs_train=8)], "b": [run(60.0, bs_train=40)]}).settings == [
        "bs_train: 8 in a, 40 in b"
    ]


def test_other_seeds_of_single_runs_are_told():
    found = compare({"a": [run(60.0, seed=1)], "b": [run(62.0, seed=2)]})
    assert found.settings == ["seed: 1 in a, 2 in b"]
    several = [run(60.0, seed=1), run(61.0, seed=2)]
    assert compare({"a": several, "b": several[::-1]}).settings == []


def test_with_several_seeds_only_what_is_more_than_noise_is_a_change():
    def seeds(*accuracies: float, layers: int) -> list[Run]:
        return [run(accuracy, layers_per_block=layers, seed=seed) for seed, accuracy in enumerate(accuracies)]

    found = compare(
        {
            "a": [*seeds(60.0, 60.4, 60.2, layers=1), *seeds(50.0, 58.0, 54.0, layers=2)],
            "b": [*seeds(70.0, 70.4, 70.2, layers=1), *seeds(53.0, 59.0, 56.0, layers=2)],
        }
    )
    assert found.rows[1] == ["1", "60.20 ± 0.50", "70.20 ± 0.50", "+10.00 ± 0.45"]
    assert found.changed == 1


def test_a_cell_that_a_sweep_does_not_have_is_missing():
    found = compare({"a": [run(60.0, lr=0.1), run(None, lr=0.2)], "b": [run(60.0, lr=0.1)], "c": [run(60.0, lr=0.2)]})
    assert found.rows[1:] == [
        ["0.1", "60.00", "60.00", "–", "same", "missing"],
        ["0.2", "–", "–", "60.00", "–", "missing"],
    ]
    assert (found.changed, found.missing) == (0, 2)


def test_a_training_that_is_not_finished_is_not_compared():
    whole = run(60.0)
    half = Run(whole.names, whole.settings, history(30.0), {"unfinished": True})
    found = compare({"a": [whole], "b": [half]})
    assert (found.rows[1:], found.changed, found.missing) == ([["60.00", "–", "missing"]], 0, 1)


@pytest.mark.parametrize(("accuracy", "exit_code"), [(50.0, 0), (51.0, 1)])
def test_the_exit_code_says_whether_a_cell_changed(tmp_path: Path, monkeypatch, capsys, accuracy, exit_code):
    monkeypatch.chdir(tmp_path)
    for name, reached in (("first", 50.0), ("second", accuracy)):
        folder, settings = SweepFolder("ray_results", name), Settings(data=DataSettings("shapes"))
        folder.trial(settings).finish(history(reached), {"id": settings.trial_id}, {})
        folder.save_experiments({"one": settings})
    assert main(["compare", "first", "ray_results/second"]) == exit_code
    assert capsys.readouterr().out.endswith(f"{exit_code} of 1 cells changed\n")


def test_sweeps_of_one_name_in_two_storages_are_compared(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for storage, reached in (("old", 50.0), ("ray_results", 51.0)):
        folder, settings = SweepFolder(storage, "first"), Settings(data=DataSettings("shapes"))
        folder.trial(settings).finish(history(reached), {"id": settings.trial_id}, {})
        folder.save_experiments({"one": settings})
    assert main(["compare", "old/first", "first"]) == 1
    assert "best validation accuracy in %: old/first 50.00 (one), first 51.00 (one)" in capsys.readouterr().out
