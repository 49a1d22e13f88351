"""Result files: what is written, and what is read of the files that others wrote."""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tune_cnn.errors import ResultError
from tune_cnn.result_files import load_experiment, load_result_file, save_experiment, to_strict_json
from tune_cnn.train_results import FitResult


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory of its own for each test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


HISTORY = FitResult(2, [2.3, 2.2, 2.1, 2.0], [10.0, 20.0], [2.2, 2.1], [15.0, 25.0])


def result_text(**changes: Any) -> str:
    """A result file's text with other `results`, as others write it; a value of `...` takes the key out."""
    results = {key: value for key, value in {**HISTORY._asdict(), **changes}.items() if value is not ...}
    return json.dumps({"config": {"run_name": "theirs"}, "results": results})


def read(text: str) -> FitResult:
    """The history in a file with this text, after what holds for every one."""
    Path("theirs.json").write_text(text)
    _, history = load_experiment("theirs.json")
    assert len(history.train_acc) == len(history.test_acc) == history.num_epochs
    assert all(type(value) is float for curve in history[1:] for value in curve)
    assert FitResult(**history._asdict()) == history
    return history


def test_what_is_saved_is_loaded(folder):
    path = folder / "new" / "folder" / "run.json"
    save_experiment(path, {"run_name": "run"}, HISTORY, {"id": "0123abcd"})
    assert load_experiment(path) == ({"run_name": "run"}, HISTORY)
    assert load_experiment(str(path)) == load_experiment(path)
    assert load_result_file(path) == ({"run_name": "run"}, HISTORY, {"id": "0123abcd"})


# Files of others who did the assignment


@pytest.mark.parametrize("told", [0, 2, 3, -1, 2.5, "2", "many", [2], True, None, ...])
def test_the_number_of_epochs_is_that_of_the_curves(told, capsys):
    assert read(result_text(num_epochs=told)) == HISTORY
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("longer", "expected"),
    [
        ({"train_acc": [10, 20, 30]}, HISTORY),
        ({"test_acc": [15, 25, 35], "num_epochs": 3}, HISTORY),
        ({"train_acc": [10, 20, 30], "train_loss": [2.3, 2.2, 2.1, 2.0, 1.9, 1.8]}, HISTORY),  # two batches an epoch
        ({"test_acc": [15, 25, 35], "test_loss": [2.2, 2.1, 2.0]}, HISTORY),
        ({"train_acc": [10, 20, 30], "test_loss": [2.2, 2.1, 2.0]}, HISTORY),  # only an accuracy is missing
        ({"train_acc": [10, 20, 30], "train_loss": [5, 4, 3, 2, 1]}, HISTORY._replace(train_loss=[5, 4, 3])),
    ],
)
def test_curves_are_cut_to_the_shorter_accuracies_and_losses_in_proportion(longer, expected, capsys):
    assert read(result_text(**longer)) == expected
    (remark,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"theirs\.json: train_acc has [23] and test_acc has [23] values; taken for 2 epochs", remark)


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({"test_acc": []}, 2),
        ({"train_acc": None}, 2),
        ({"train_acc": [], "test_acc": []}, 2),
        ({"train_acc": ..., "test_acc": ..., "num_epochs": 0, "train_loss": [3, 2, 1], "test_loss": [4, 3, 2]}, 3),
        ({"train_acc": [], "test_acc": [], "num_epochs": 0, "test_loss": []}, 4),
    ],
)
def test_accuracies_that_are_missing_are_nan(changes, epochs, capsys):
    history = read(result_text(**changes))
    assert history.num_epochs == epochs
    for name in ("train_acc", "test_acc"):
        assert all(map(math.isnan, getattr(history, name))) == (name in changes)
    assert f"values; taken for {epochs} epochs" in capsys.readouterr().err
    assert history.best_accuracy == (0 if "test_acc" in changes else 25)


@pytest.mark.parametrize("loss", [[], None, ...])
def test_losses_that_are_missing_are_none(loss):
    assert read(result_text(train_loss=loss)) == HISTORY._replace(train_loss=[])
    assert read(result_text(train_loss=loss, test_loss=loss)).test_loss == []


def test_an_empty_training_is_one():
    assert read(result_text(train_loss=[], train_acc=[], test_loss=[], test_acc=[])) == FitResult.empty()


@pytest.mark.parametrize(
    "curve",
    [
        [2, 1], ["2.0", "1"], [[2.0], [1.0]], [[2.0, 1.0]], "[2.0, 1.0]", "2 1", {"0": 2.0, "1": 1.0},
        ["tensor(2.0, device='cuda:0')", "tensor(1.)"], ["np.float64(2.0)", " 1e0 "],
        ["tensor([2.], device='cuda:0', dtype=torch.float64)", "1.00 %"], "tensor([2., 1.], grad_fn=<MeanBackward0>)",
        "[tensor(2., device='cuda:0'), tensor(1., device='cuda:0')]",
    ],
)  # fmt: skip
def test_numbers_are_read_however_they_are_wrapped(curve):
    assert read(result_text(test_loss=curve)) == HISTORY._replace(test_loss=[2.0, 1.0])
    assert read(result_text(test_acc=curve)) == HISTORY._replace(test_acc=[2.0, 1.0])


def test_what_is_not_finite_is_read():
    """Python writes NaN and Infinity, which are no strict JSON; and a number beyond PyTorch's counts as infinite."""
    losses = [math.nan, math.inf, 10**400, -1e39]
    history = read(result_text(train_loss=losses, test_loss=[None, "nan"]))
    assert math.isnan(history.train_loss[0])
    assert history.train_loss[1:] == [math.inf, math.inf, -math.inf]
    assert all(map(math.isnan, history.test_loss))


def test_config_and_results_may_have_more_keys_or_fewer():
    config = {"model_type": "resnet", "kw": {"dropout": 0.1, "optimizer": "SGD"}, "optimizer": "Adam"}
    results = {**HISTORY._asdict(), "best_acc": 25, "time": "1 min"}
    Path("more.json").write_text(json.dumps({"config": config, "results": results, "seed": 3}))
    assert load_result_file("more.json") == (config, HISTORY, {})
    for bare in ({"results": results}, {"config": None, "results": results, "trial": None}, results, list(HISTORY)):
        Path("fewer.json").write_text(json.dumps(bare))
        assert load_result_file("fewer.json") == ({}, HISTORY, {})


def test_accuracies_that_never_exceed_1_are_fractions(capsys):
    history = read(result_text(train_acc=[0.1, 0.4], test_acc=[0.15, 1]))
    assert (history.train_acc, history.test_acc) == ([10, 40], [15, 100])
    assert capsys.readouterr().err == "theirs.json: no value of train_acc and test_acc exceeds 1; taken for fractions\n"


@pytest.mark.parametrize("name", ["train_acc", "test_acc"])
def test_only_one_curve_may_be_in_fractions(name, capsys):
    history = read(result_text(**{name: [0.1, 0.4]}))
    assert history == HISTORY._replace(**{name: [10, 40]})
    assert capsys.readouterr().err == f"theirs.json: no value of {name} exceeds 1; taken for fractions\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_any_encoding_of_the_text_is_read(encoding):
    text = json.dumps({"config": {"note": "modèle"}, "results": HISTORY._asdict()}, ensure_ascii=False)
    Path("theirs.json").write_text(text, encoding)
    assert load_experiment("theirs.json") == ({"note": "modèle"}, HISTORY)


@pytest.mark.parametrize(
    "changes",
    [
        {"train_acc": [0.5, 0.9], "test_acc": [0.9, 1.1]},
        {"train_acc": [0.99, 0.97], "test_acc": [1.0, 1.0], "train_loss": [4.61, 4.6], "test_loss": [4.6]},
        {"train_acc": [1.0, 1.0], "test_acc": [1.0, 1.0]},  # guessing among a hundred classes
        {"train_acc": [0, 0], "test_acc": [0, 0]},
    ],
)
def test_a_few_percent_are_no_fractions(changes, capsys):
    history = read(result_text(**changes))
    assert history.test_acc == changes["test_acc"]
    assert capsys.readouterr().err == ""


def test_a_perfect_training_in_fractions_is_known_by_its_losses():
    history = read(result_text(train_acc=[1.0, 1.0], test_acc=[1.0, 1.0], test_loss=[0.1, 0.01]))
    assert history.test_acc == [100, 100]


def test_guessing_among_a_hundred_classes_in_fractions_is_known_by_its_losses():
    history = read(result_text(train_acc=[0.01, 0.011], test_acc=[0.01, 0.01], train_loss=[4.61, 4.6], test_loss=[4.6]))
    assert history.test_acc == [1, 1]


def test_our_own_files_are_in_percent(folder):
    poor = HISTORY._replace(train_acc=[0.5, 0.9], test_acc=[0.9, 1.0])
    save_experiment(folder / "ours.json", {}, poor, {"id": "0123abcd"})
    assert load_experiment("ours.json") == ({}, poor)


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"damaged \(.*\); export or run its experiment again"),
        (result_text()[:-5], r"damaged \(.*\); export or run its experiment again"),
        ("[" * 100_000, r"damaged \(.*\); export or run its experiment again"),
        ("\0\0", r"damaged \(.*\); export or run its experiment again"),
        ("[]", "not a result file: it has no results with train_loss, train_acc, test_loss, test_acc; name another"),
        ("3", "not a result file: it has no results with "),
        ('{"name": "package"}', "not a result file: it has no results with "),
        ('{"config": {}, "results": []}', "not a result file: it has no results with "),
        ('{"config": {}, "results": {"accuracy": [1, 2]}}', "not a result file: it has no results with "),
        (result_text(test_acc=["1", "many"]), r"results\.test_acc is not a curve of numbers \(.*'many'\); correct it"),
        (result_text(train_loss=2.3), r"results\.train_loss is not a curve of numbers \(2\.3 is not a list\); correct"),
        (result_text(test_loss=[True]), r"results\.test_loss is not a curve of numbers \(True is not a number\)"),
        (result_text(test_loss=[[[1.0]]]), r"results\.test_loss is not a curve of numbers \(\[1\.0\] is not a number"),
        (result_text(test_loss={"mean": 1}), r"results\.test_loss is not a curve of numbers \(\{'mean': 1\} is no"),
        (result_text(test_loss="see log"), r"results\.test_loss is not a curve of numbers \(.*'see'\)"),
    ],
)  # fmt: skip
def test_a_file_that_is_damaged_or_has_no_curves_is_named_with_the_reason(text, message):
    Path("odd.json").write_text(text)
    with pytest.raises(ResultError, match=rf"^odd\.json: {message}"):
        load_experiment("odd.json")


def test_a_missing_file_is_named():
    with pytest.raises(ResultError, match=r"results/none\.json: cannot be read \(No such file or directory\); run its"):
        load_experiment("results/none.json")
    with pytest.raises(ResultError, match=r"cannot be read \(not a regular file\)"):
        load_experiment(".")


def test_a_write_that_fails_leaves_the_old_file_whole(folder, monkeypatch):
    path = folder / "run.json"
    save_experiment(path, {}, HISTORY, {})
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(OSError, match="No space left on device"):
                save_experiment(path, {}, HISTORY._replace(train_loss=[1.0]), {})
        assert path.read_bytes() == before
        assert os.listdir(folder) == ["run.json"]


def test_a_result_file_can_be_read_by_others():
    save_experiment(Path("run.json"), {}, HISTORY, {})
    assert Path("run.json").stat().st_mode & 0o777 == 0o644


def test_strict_json_has_null_for_what_is_not_finite():
    values = {"a": [1.5, math.nan, (math.inf, {"b": -math.inf})], "c": "NaN", "d": True}
    text = to_strict_json(values)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [1.5, None, [None, {"b": None}]],
        "c": "NaN",
        "d": True,
    }
    assert re.search(r'^  "c": "NaN"', text, re.M)
