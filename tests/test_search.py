"""Random searches: what is drawn, what is refused, and what a sweep of one leaves."""

from pathlib import Path

import pytest
from tiny_sweep import train

from tune_cnn.cli import main
from tune_cnn.errors import ConfigError
from tune_cnn.result_files import load_result_file
from tune_cnn.results import export
from tune_cnn.sweep.config.load import Experiment, load_experiments
from tune_cnn.sweep.config.search_space import DISTRIBUTIONS, draw
from tune_cnn.sweep.sweep_folder import SweepFolder

SEARCH = """
run_name: tiny_{sample}
search:
  lr: {loguniform: [1.0e-4, 1.0e-2]}
  filters_per_layer: {choice: [[4], [6], [4, 6]]}
  layers_per_block: {randint: [1, 3]}
  reg: {quniform: [0, 0.01, 0.002]}
samples: 6
settings: {seed: 42, bs_train: 20, epochs: 2, hidden_dims: [10]}
data: {source: shapes, in_size: [3, 8, 8], train_images: 100, test_images: 30}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SEARCH)
    return path


def load(path: Path, *overrides: str, only: tuple[str, ...] = ()) -> list[Experiment]:
    return load_experiments([path], overrides=overrides, only=only)


def faults(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, *overrides)
    return str(caught.value).split("\n")


def test_samples_are_drawn_within_their_distributions(config):
    experiments = load(config, "samples=4e1")
    assert [e.name for e in experiments[:3]] == ["tiny_000", "tiny_001", "tiny_002"]
    assert len({e.settings.trial_id for e in experiments}) == 40
    assert all(1e-4 <= e.settings.lr <= 1e-2 for e in experiments)
    assert sum(e.settings.lr < 1e-3 for e in experiments) in range(10, 31)  # half of them, as the scale is logarithmic
    assert {e.settings.filters_per_layer for e in experiments} == {(4,), (6,), (4, 6)}
    assert {e.settings.layers_per_block for e in experiments} == {1, 2}
    assert {e.settings.reg for e in experiments} == {0, 0.002, 0.004, 0.006, 0.008, 0.01}


def test_a_sample_stays_when_samples_or_keys_are_added_or_chosen(config):
    settings = [e.settings for e in load(config)]
    assert [e.settings for e in load(config, "samples=9")][:6] == settings
    assert [e.settings for e in load(config, only=("*_004",))] == [settings[4]]
    more = load(config, "search.momentum={uniform: [0.5, 0.9]}")
    assert [e.settings.lr for e in more] == [s.lr for s in settings]
    assert [e.settings.lr for e in load(config, "search_seed=1")] != [s.lr for s in settings]


def test_a_drawn_setting_is_the_one_that_is_printed(config):
    for experiment in load(config):
        lr = experiment.settings.lr
        assert float(f"{lr:.6g}") == lr
        (again,) = load(config, "search={reg: {choice: [1]}}", "samples=1", f"lr={lr}")
        assert again.settings.lr == lr


def test_every_cell_of_a_grid_and_every_seed_gets_the_same_samples(config):
    experiments = load(config, "run_name=t_P{P}_{sample}", "grid.pool_every=[2, 4]", "seeds=[1, 2]", "samples=2")
    assert [e.name for e in experiments] == [f"t_P{p}_{n:03}_S{s}" for p in (2, 4) for s in (1, 2) for n in (0, 1)]
    assert len({e.settings.lr for e in experiments}) == 2


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_distribution_is_drawn_by_tune(name):
    arguments = [["a", "b"]] if name == "choice" else [[2, 8, 2][: len(DISTRIBUTIONS[name])]]
    values = [draw({"x": {name: arguments[0]}}, 0, sample)["x"] for sample in range(50)]
    if name == "choice":
        assert set(values) == {"a", "b"}
    else:
        assert {type(value) for value in values} == {int if "randint" in name else float}
        assert min(values) >= 2
        assert max(values) <= 8
        assert len(set(values)) == (4 if "q" in name else 6 if "randint" in name else 50)


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("search.lr={logunifrom: [1, 2]}", "logunifrom: unknown distribution; did you mean 'loguniform'?"),
        ("search.lr={loguniform: [0, 1]}", "loguniform: low is 0, which has no logarithm; give one above 0"),
        ("search.lr={loguniform: [1, 0.1]}", "loguniform: low is 1 and high is 0.1; give a low below the high"),
        ("search.lr={loguniform: [1]}", "loguniform: [1] is not [low, high]"),
        ("search.lr={loguniform: 1}", "loguniform: 1 is not [low, high]"),
        ("search.lr={uniform: [a, 1]}", "uniform: 'a' is not a number; give [low, high]"),
        ("search.lr={uniform: [-1, 1]}", "-1 is not a number above 0"),
        (
            "search.lr={quniform: [1, 2, 0]}",
            "quniform: 1 and 2 are not both multiples of q, 0; give multiples",
        ),
        (
            "search.lr={quniform: [1, 2, 3]}",
            "quniform: 1 and 2 are not both multiples of q, 3; give multiples",
        ),
        ("search.lr={choice: []}", "choice: [] is not a list of values"),
        ("search.lr={choice: [1, x]}", "'x' is not a number above 0"),
        ("search.lr=[1, 2]", "[1, 2] is not a distribution; write one such as {loguniform: [1.0e-4, 1.0e-2]}"),
        ("search.layers_per_block={randint: [1.5, 3]}", "randint: 1.5 is not a whole number; give [low, high]"),
    ],
)
def test_a_faulty_distribution_is_named_with_its_remedy(config, override, fault):
    key = override.partition("=")[0]
    heading, *problems = faults(config, override)
    assert heading == "changed settings: 1 problem"
    assert problems == [f"  {key}: {fault}"]


def test_all_faults_of_a_search_are_told_at_once(config):
    text = SEARCH.replace("samples: 6", "samples: 0").replace("tiny_{sample}", "tiny").replace("lr:", "learning_rate:")
    config.write_text(text.replace("loguniform", "log").replace("seed: 42", "seed: 42, reg: 0"))
    _, *problems = faults(config)
    assert problems == [
        "  search.learning_rate: unknown key; did you mean 'lr'?",
        "  samples: 0 is not a whole number from 1 up",
        "  settings.reg: search.reg varies it too; set that instead, or keep one",
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("tiny_{sample}", "tiny"), "run_name: 'tiny' gives sample 0 and 1 one name; add {sample}"),
        (("samples: 6", ""), "samples: missing; write how many are drawn, such as samples: 16"),
        (("samples: 6", "samples: 20000"), "samples: 20,000 experiments; split it, a file may have 10,000 at most"),
        (
            ("{randint: [1, 3]}", "{uniform: [1, 3]}"),
            r"search.layers_per_block: \S+ is not a whole number from 1 up; .*",
        ),
        (("samples: 6", "samples: 6\nseeds: [1]"), "settings.seed: seeds varies it too; set that instead, or keep one"),
        (
            ("settings:", "grid: {lr: [1]}\nsettings:"),
            "grid.lr: search.lr varies it too; set that instead, or keep one",
        ),
    ],
)
def test_what_does_not_fit_a_search_is_refused(config, change, fault):
    import re

    config.write_text(SEARCH.replace(*change))
    problems = faults(config)[1:]
    assert any(re.fullmatch(f"  {fault if 'S+' in fault else re.escape(fault)}", problem) for problem in problems)


@pytest.mark.parametrize("search", ["", "search: {}\n"])
def test_what_belongs_to_a_search_is_refused_without_one(config, search):
    config.write_text(f"run_name: tiny_{{sample}}\n{search}samples: 3\nsearch_seed: 1\n")
    assert faults(config)[1:] == [
        "  samples: there is no search: to draw from; add one, or leave this out",
        "  search_seed: there is no search: to draw from; add one, or leave this out",
    ]


def test_what_the_search_varies_is_not_set_beside_it(config):
    assert faults(config, "lr=0.1")[1:] == ["  settings.lr: search.lr varies it too; set that instead, or keep one"]


def test_the_dry_run_lists_the_samples_with_what_varies(config, capsys):
    assert main(["sweep", str(config), "--dry-run", "--storage", str(config.parent)]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[:6] == ["experiment", "trial", "K", "L", "lr", "reg"]
    settings = load(config)[2].settings
    assert lines[2].split()[4:6] == [str(settings.lr), str(settings.reg)]


def test_result_files_hold_the_distributions_and_a_grown_search_trains_only_what_is_new(config, tmp_path, capsys):
    folder = SweepFolder(str(tmp_path), "tiny")
    experiments = load(config, "samples=2")
    assert len(train(experiments, folder)) == 4
    searches = {e.name: e.search for e in experiments}
    folder.save_experiments({e.name: e.settings for e in experiments}, searches)
    assert main(["status", str(folder)]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split()[:2] == ["experiment", "trial"]
    labels = [folder.trial(e.settings).label for e in experiments]
    assert [row.split()[:2] for row in rows[:2]] == [["tiny_000", labels[0]], ["tiny_001", labels[1]]]
    for path in export(folder, tmp_path / "results").files:
        assert load_result_file(path)[2]["search"]["lr"] == {"loguniform": [1e-4, 1e-2]}
    assert len(train(load(config, "samples=3"), folder)) == 2
