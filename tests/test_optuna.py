"""A search by Optuna: its study in the sweep's folder, before, while and after the sweep runs."""

import importlib.util
import json
import signal
from pathlib import Path

import optuna
import pytest
from sweep_process import SweepProcess

from tune_cnn.cli import main
from tune_cnn.errors import ConfigError
from tune_cnn.sweep.config.load import Experiment, load_experiments
from tune_cnn.sweep.study import Studies, open_studies, settled
from tune_cnn.sweep.sweep_folder import SweepFolder

CONFIG = """
run_name: opt_{sample}
search:
  lr: {loguniform: [1.0e-4, 1.0e-2]}
  filters_per_layer: {choice: [[4], [8], [4, 8]]}
  layers_per_block: {randint: [1, 4]}
samples: 16
algorithm: optuna
settings: {seed: 1, epochs: 3, bs_train: 10, pool_every: 4, hidden_dims: [8]}
data: {source: shapes, in_size: [3, 12, 12], train_images: 200, test_images: 20}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "opt.yaml"
    path.write_text(CONFIG)
    return path


def studies_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    names = optuna.get_all_study_names(storage)
    found = [trial for name in names for trial in optuna.load_study(study_name=name, storage=storage).trials]
    storage.engine.dispose()
    return found


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("algorithm=hyperopt", "algorithm: 'hyperopt' is not one of random, optuna"),
        ("search.reg={qloguniform: [0.1, 0.8, 0.1]}", "search.reg: qloguniform: Optuna cannot round on a logarithmic"),
        ("search.lr={uniform: [0, 1]}", "search.lr: 0 is not a number above 0"),
        ("search.layers_per_block={uniform: [1, 4]}", "is not a whole number from 1 up; choose another distribution"),
    ],
)
def test_faults_are_told_at_once(config, override, fault):
    with pytest.raises(ConfigError) as caught:
        load_experiments([config], overrides=[override], may_be_open=True)
    assert any(fault in problem for problem in caught.value.problems)


def test_without_optuna_the_remedy_is_told(config, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "optuna" else find(name, *more))
    with pytest.raises(ConfigError, match=r"algorithm: optuna is not installed; pip install 'tune_cnn\[optuna\]'"):
        load_experiments([config], may_be_open=True)


def test_algorithm_without_a_search_is_a_fault(config):
    config.write_text("run_name: a\nalgorithm: optuna\n")
    with pytest.raises(ConfigError, match="algorithm: there is no search: to draw from"):
        load_experiments([config], may_be_open=True)


@pytest.mark.parametrize("command", [["diagnose"], ["trial"], ["bench"]])
def test_commands_without_a_sweep_say_that_the_settings_are_not_known(config, command, capsys):
    names = ["opt_000"] if command == ["trial"] else []
    assert main([*command, str(config), *names]) == 2
    fault = "optuna suggests settings only as the sweep runs; use --set algorithm=random, or tune-cnn trial on a sweep"
    assert fault in capsys.readouterr().err


def test_what_is_left_to_be_suggested_is_unfinished_even_if_its_stand_in_has_failed(config, monkeypatch, capsys):
    def fails(plan: list[Experiment], folder: SweepFolder, *_: object, **__: object) -> dict[str, str]:
        folder.save_experiments({})
        return {plan[0].settings.trial_id: "epoch 1: ValueError"}

    monkeypatch.setattr("tune_cnn.api.run_sweep", fails)
    assert main(["sweep", str(config)]) == 1
    assert "16 experiments unfinished; the same command continues" in capsys.readouterr().out


def test_a_dry_run_says_that_the_settings_are_not_known(config, capsys):
    assert main(["sweep", str(config), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "settings that Optuna will suggest as the sweep runs, not known yet: 16" in out
    assert "16 experiments, 16 trials: 0 done, 0 to continue, 16 new" in out


def test_what_was_suggested_is_kept_before_it_runs_and_settings_are_what_prints(config, tmp_path):
    experiments = load_experiments([config], may_be_open=True)
    folder = SweepFolder(str(tmp_path / "storage"), "opt")
    with open_studies(folder) as studies:
        first, second = (studies.suggest(experiment) for experiment in experiments[:2])
    assert first.settings != second.settings
    assert float(f"{first.settings.lr:.6g}") == first.settings.lr
    assert first.settings.filters_per_layer in ((4,), (8,), (4, 8))
    again = settled(experiments, folder)
    assert again[:2] == [first, second]
    assert all(experiment.is_open for experiment in again[2:])
    changed = load_experiments([config], overrides=["epochs=4"], may_be_open=True)
    assert all(experiment.is_open for experiment in settled(changed, folder))  # another study


def test_a_resumed_study_does_not_repeat_itself(config, tmp_path):
    experiments = load_experiments([config], may_be_open=True)
    folder = SweepFolder(str(tmp_path / "storage"), "opt")
    suggested = []
    for experiment in experiments[:4]:
        with open_studies(folder) as studies:  # each time as after a kill
            suggested.append(studies.suggest(experiment).settings)
    assert len({settings.trial_id for settings in suggested}) == 4
    assert len({settings.layers_per_block for settings in suggested}) > 1


def test_every_network_that_may_be_suggested_is_looked_for_before_the_start(config, tmp_path):
    (tmp_path / "nets.py").write_text("from torch import nn\nclass Net(nn.Linear): pass\n")
    change = "search.model={choice: [null, nets.py:Nett]}"
    with pytest.raises(ConfigError, match=r"Nett: no class of this name is a torch.nn.Module; did you mean 'Net'"):
        load_experiments([config], overrides=[change], may_be_open=True)


def test_settings_that_cannot_be_trained_are_suggested_anew(config, tmp_path):
    changes = ["pool_every=1", "search.layers_per_block={randint: [1, 9]}"]  # of images of 12x12, three poolings fit
    experiments = load_experiments([config], overrides=changes, may_be_open=True)
    folder = SweepFolder(str(tmp_path / "storage"), "opt")
    with open_studies(folder) as studies:
        suggested = [studies.suggest(experiment).settings for experiment in experiments]
    assert max(len(settings.filters) for settings in suggested) <= 3
    assert len(studies_of(tmp_path / "storage" / "opt")) > len(experiments)


@pytest.mark.slow
def test_a_custom_networks_file_may_be_edited_while_its_settings_are_suggested(config, tmp_path, monkeypatch):
    source = tmp_path / "nets.py"
    source.write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, in_size, out_classes):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(in_size[0] * in_size[1] * in_size[2], out_classes))\n"
    )
    config.write_text(
        "run_name: own_{sample}\nsearch: {lr: {loguniform: [1.0e-4, 1.0e-2]}}\nsamples: 3\nalgorithm: optuna\n"
        "settings: {model: nets.py:Net, seed: 1, epochs: 1, bs_train: 10}\n"
        "data: {source: shapes, in_size: [3, 12, 12], train_images: 200, test_images: 20}\n"
    )
    suggest = Studies.suggest

    def edited(self: Studies, experiment: Experiment) -> Experiment:
        source.write_text(source.read_text() + "# and more\n")
        return suggest(self, experiment)

    monkeypatch.setattr(Studies, "suggest", edited)
    assert main(["sweep", str(config), "--cpus", "1"]) == 0
    assert len(list((tmp_path / "results").glob("own_*.json"))) == 3


@pytest.mark.slow
def test_suggested_settings_are_trained_on_the_images_and_with_the_resources_of_their_file(config, tmp_path):
    config.write_text(CONFIG.replace("samples: 16", "samples: 1"))
    other = CONFIG.replace("opt_", "other_").replace("samples: 16", "samples: 1").replace("200", "100")
    (tmp_path / "other.yaml").write_text(other + "resources: {cpus_per_trial: 2}\n")
    assert main(["sweep", str(config), "other.yaml", "--cpus", "2"]) == 0
    facts = [json.loads((tmp_path / f"results/{name}_000.json").read_text())["trial"] for name in ("opt", "other")]
    assert [(fact["images"]["train"], fact["threads"]) for fact in facts] == [(170, 1), (85, 2)]


@pytest.mark.slow
def test_killed_twice_and_resumed_none_is_lost_and_none_trained_twice(config, tmp_path):
    arguments = ["sweep", str(config), "--cpus", "2"]
    folder = tmp_path / "ray_results" / "opt"

    def finished() -> int:
        return len(list(folder.glob("trials/*/record.json")))

    told = ""
    for least in (3, 8):
        with SweepProcess(arguments, tmp_path) as process:
            process.wait_until(lambda least=least: finished() >= least)
            process.send_to_group(signal.SIGKILL)
            process.exit_code()
        told += process.stderr
    with SweepProcess(arguments, tmp_path) as process:
        assert process.exit_code() == 0, process.stderr
    told += process.stderr
    experiments = json.loads((folder / "sweep.json").read_text())["experiments"]
    assert sorted(experiments) == [f"opt_{number:03d}" for number in range(16)]
    trials = studies_of(folder)
    assert sorted(trial.user_attrs["experiment"] for trial in trials) == sorted(experiments)
    assert {trial.state for trial in trials} == {optuna.trial.TrialState.COMPLETE}
    for trial in trials:
        results = json.loads((tmp_path / "results" / f"{trial.user_attrs['experiment']}.json").read_text())
        assert results["trial"]["stop_reason"] is not None
        assert trial.value == results["trial"]["best_validation_accuracy"]
        assert results["config"]["lr"] == pytest.approx(trial.params["lr"], rel=1e-5)
    ends = [line for line in told.splitlines() if "finished 3 of 3" in line]
    assert len(ends) == len(set(ends))
    assert main(["trial", str(folder), "opt_007"]) == 0
    assert main(arguments) == 0  # nothing is left


@pytest.mark.slow
def test_with_a_grid_and_a_scheduler_equal_suggestions_are_trained_and_counted_once(config, tmp_path, capsys):
    config.write_text(
        CONFIG.replace("opt_{sample}", "opt_P{P}_{sample}")
        .replace(
            "search:", "grid: {pool_every: [2, 4]}\nscheduler: {asha: {grace_period: 1, reduction_factor: 2}}\nsearch:"
        )
        .replace("  lr: {loguniform: [1.0e-4, 1.0e-2]}\n", "")
        .replace("{choice: [[4], [8], [4, 8]]}", "{choice: [[4]]}")
        .replace("pool_every: 4, ", "")
        .replace("samples: 16", "samples: 4")
    )
    assert main(["sweep", str(config), "--cpus", "2", "--max-concurrent", "1"]) == 0
    folder = tmp_path / "ray_results" / "opt"
    assert len(list((tmp_path / "results").glob("opt_P*.json"))) == 8
    trained = len(list(folder.glob("trials/*/record.json")))
    assert 2 <= trained <= 6  # there are three depths
    told = [line for line in capsys.readouterr().err.splitlines() if line.endswith(" trials ended)")]
    assert told[-1].endswith(f"({trained}/{trained} trials ended)")
    assert sum("  suggested again; it is trained only once  (" in line for line in told) == 8 - trained
    trials = studies_of(folder)
    assert len(trials) == 8
    assert {trial.state for trial in trials} == {optuna.trial.TrialState.COMPLETE}
