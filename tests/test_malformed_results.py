"""Result files that were damaged, edited or made up are named, and never a traceback."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from malformed import damaged, edited, run, values

import tune_cnn.report.figure_files  # noqa: F401  # else the first example says on stderr that it loads PyTorch
from tune_cnn.errors import ResultError
from tune_cnn.experiments import experiment_config
from tune_cnn.result_files import load_result_file, save_experiment
from tune_cnn.settings import Settings
from tune_cnn.train_results import FitResult

RESULTS = FitResult(2, [2.3, 2.2, 2.1, 2.0], [10.0, 20.5], [2.3, 2.2], [11.0, 12.5])
FACTS = {"id": "0d29faf2", "test_accuracy": 12.5, "best_epoch": 2, "data": {"source": "cifar10", "classes": 10}}


def good_file() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "good.json"
        save_experiment(path, experiment_config("good", "results", Settings(seed=42)), RESULTS, FACTS)
        return path.read_text()


GOOD = good_file()


@st.composite
def made_up(draw: st.DrawFn) -> bytes:
    """A file whose parts fit together, with curves that no training would give."""
    epochs = draw(st.integers(0, 3))
    curve = st.lists(st.none() | st.floats(-4e38, 4e38) | st.floats(), max_size=40)
    percent = st.none() | st.floats(-0.1, 100.1) | st.integers(0, 100)
    accuracy = st.lists(percent, min_size=epochs, max_size=epochs)
    results = {"num_epochs": epochs} | {
        name: draw(accuracy if name.endswith("acc") else curve) for name in RESULTS._fields[1:]
    }
    content = {"config": draw(st.dictionaries(st.text(max_size=5), values, max_size=3)), "results": results}
    return json.dumps({**content, "trial": {**FACTS, "data": draw(values)}}).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("malformed")


@settings(max_examples=500, deadline=None)
@given(content=edited(GOOD) | damaged(GOOD) | made_up())
def test_a_malformed_file_is_refused_by_name_or_read_as_what_it_says(folder, content):
    path = folder / "exp1_1_K32_L2.json"
    path.write_bytes(content)
    try:
        config, results, facts = load_result_file(path)
    except ResultError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 - many of them are refused, not all
        return
    assert isinstance(config, dict)
    assert isinstance(facts, dict)
    assert len(results.train_acc) == len(results.test_acc) == results.num_epochs
    assert all(isinstance(value, float) for curve in results[1:] for value in curve)


@pytest.mark.filterwarnings("ignore:Attempting to set identical")  # of Matplotlib, about accuracies such as 1e-309 %
@settings(max_examples=20, deadline=None, phases=set(Phase) - {Phase.shrink})  # which would take minutes
@given(content=edited(GOOD) | made_up(), name=st.sampled_from(["exp1_1_K32_L2", "anything"]))
def test_plot_draws_a_malformed_file_or_names_it(folder, content, name):
    path = folder / f"{name}.json"
    path.write_bytes(content)
    exit_code, out, err = run("plot", name, "--results", str(folder), "--out", str(folder / "figures"))
    if exit_code == 0:
        assert Path(out.strip()).is_file()
        assert all(line.startswith(f"{path}: ") for line in err.splitlines())  # remarks
    else:
        assert exit_code == 2
        assert any(line.startswith(f"Left out: {path}: ") for line in err.splitlines())  # after remarks
        assert out == ""
