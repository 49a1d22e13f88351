"""What would run, what it costs, and whether it fits on the disk."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tune_cnn.errors import StorageError
from tune_cnn.models import cost
from tune_cnn.sweep.config.load import Experiment, load_experiments
from tune_cnn.sweep.plan import aligned, check_disk, disk_use, make_plan, plan_summary, plan_table
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.texts import size
from tune_cnn.train_results import FitResult

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture(scope="module")
def experiments() -> list[Experiment]:
    return load_experiments([CONFIGS / "exp1_1.yaml", CONFIGS / "exp1_2.yaml"])


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(str(tmp_path), "sweep")


def finish(folder: SweepFolder, experiment: Experiment) -> None:
    results = FitResult(1, [2.3], [10.0], [2.3], [10.0])
    folder.trial(experiment.settings).finish(results, {}, {"w": torch.zeros(1)})


def test_the_two_experiments_share_six_trials(experiments, folder):
    plan = make_plan(experiments, folder)
    assert plan_summary(plan) == "20 experiments, 14 trials: 0 done, 0 to continue, 14 new"
    shared = {line.name: line.shares_with for line in plan if line.shares_with}
    assert shared == {
        f"exp1_2_L{depth}_K{width}": f"exp1_1_K{width}_L{depth}" for depth in (2, 4, 8) for width in (32, 64)
    }


def test_the_table_has_a_line_for_each_experiment_and_the_count_below(experiments, folder):
    verdicts = {experiments[0].settings.trial_id: "trains"}
    header, *lines, summary = plan_table(
        make_plan(experiments, folder), verdicts, {experiments[0].settings.trial_id: 18.5}
    ).splitlines()
    columns = "experiment trial K L parameters mult-adds verdict time state shares its trial with"
    assert " ".join(header.split()) == columns
    assert summary == "20 experiments, 14 trials: 0 done, 0 to continue, 14 new"
    cells = {line.split()[0]: line.split() for line in lines}
    assert list(cells) == [experiment.name for experiment in experiments]
    by_name = {experiment.name: experiment.settings for experiment in experiments}
    # 3x3 convolutions 3->32 and 32->32 without a pool in between (P = 4 > N), then 32*32*32 -> 100 -> 100 -> 10.
    parameters = 3 * 32 * 9 + 32 + 32 * 32 * 9 + 32 + 32**3 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10
    multiply_adds = 32 * 32 * (3 * 32 * 9 + 32 * 32 * 9) + 32**3 * 100 + 100 * 100 + 100 * 10
    assert cells["exp1_1_K32_L2"] == [
        "exp1_1_K32_L2", by_name["exp1_1_K32_L2"].trial_id, "32", "2",
        f"{parameters:,}", f"{multiply_adds / 1e6:.1f}", "M", "trains", "18.5", "s", "new",
    ]  # fmt: skip
    assert cells["exp1_2_L8_K64"][-4:] == ["-", "-", "new", "exp1_1_K64_L8"]
    assert cells["exp1_2_L8_K64"][1] == cells["exp1_1_K64_L8"][1]


def test_a_trial_is_done_continues_or_is_new_for_all_that_share_it(experiments, folder):
    by_name = {experiment.name: experiment for experiment in experiments}
    finish(folder, by_name["exp1_1_K32_L2"])
    folder.trial(by_name["exp1_2_L4_K64"].settings).save_checkpoint(3, {"w": torch.zeros(1)})
    plan = make_plan(experiments, folder)
    states = {line.name: line.state for line in plan if line.state != "new"}
    assert states == {
        "exp1_1_K32_L2": "done", "exp1_1_K64_L4": "continue", "exp1_2_L2_K32": "done", "exp1_2_L4_K64": "continue",
    }  # fmt: skip
    assert plan_summary(plan) == "20 experiments, 14 trials: 1 done, 1 to continue, 12 new"


def test_a_damaged_record_is_not_done(experiments, folder):
    finish(folder, experiments[0])
    folder.trial(experiments[0].settings).folder.write("record.json", b"{")
    assert plan_summary(make_plan(experiments[:1], folder)) == "1 experiment, 1 trial: 0 done, 0 to continue, 1 new"


def test_disk_use_is_three_checkpoints_of_the_largest_running_trials_and_what_finished_ones_keep(experiments, folder):
    finish(folder, experiments[0])
    plan = make_plan(experiments, folder)
    parameters = {line.settings.trial_id: cost(line.settings).parameters for line in plan if line.state != "done"}
    assert len(parameters) == 13
    largest, second = sorted(parameters.values())[-1:-3:-1]
    # float32: a checkpoint has the weights, two numbers of Adam for each, and the best weights; one of them is kept.
    checkpoints = 3 * (4 + 8 + 4) * (largest + second)
    assert disk_use(plan, at_once=2) == (16 * sum(parameters.values()) + checkpoints, 16 * sum(parameters.values()))
    assert disk_use(plan, at_once=100)[0] == (16 + 3 * 16) * sum(parameters.values())


def test_a_real_checkpoint_is_no_larger_than_the_plan_says(tmp_path):
    from tune_cnn import data
    from tune_cnn.settings import DataSettings, Settings
    from tune_cnn.sweep.config.file_model import Resources
    from tune_cnn.trial import Trial

    images = DataSettings(source="shapes", in_size=(3, 8, 8), train_images=40, test_images=10)
    settings = Settings(seed=1, epochs=9, bs_train=20, filters_per_layer=(8,), data=data.resolve(images))
    trial = Trial(settings, data.load(settings.data))
    trial.run_epoch()
    folder = SweepFolder(str(tmp_path), "sweep")
    folder.trial(settings).save_checkpoint(1, trial.state_dict())
    written = (folder.trial(settings).folder.local_path / "epoch_0001.pt").stat().st_size
    running, finished = disk_use(make_plan([Experiment("a", settings, Resources())], folder), at_once=1)
    assert 0.9 * written < (running - finished) / 3 < 1.1 * written


def test_a_finished_sweep_needs_no_disk(experiments, folder):
    finish(folder, experiments[0])
    assert disk_use(make_plan(experiments[:1], folder), at_once=2) == (0, 0)


def test_a_disk_that_is_too_small_is_refused_with_numbers_and_remedy(folder, tmp_path, monkeypatch):
    asked = []

    def disk_usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=1_500_000_000)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    check_disk(folder, 1_500_000_000)
    message = (
        f"{folder}: the sweep needs up to 2.3 GB, but only 1.5 GB are free; make room, give a storage elsewhere, "
        "or run a part of it"
    )
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        check_disk(folder, 2_345_000_000)
    assert asked == [tmp_path, tmp_path]  # the sweep's own folder does not exist yet


def test_remote_storage_has_no_disk_to_fill(tmp_path):
    check_disk(SweepFolder(f"mock://{tmp_path}", "sweep"), 10**30)


@pytest.mark.parametrize(("count", "text"), [(0, "0 MB"), (123_456_789, "123 MB"), (1_000_000_000, "1.0 GB")])
def test_sizes_for_people(count, text):
    assert size(count) == text


def test_numbers_stand_to_the_right_and_words_to_the_left():
    assert aligned([("name", "count"), ("a", "5"), ("long one", "1,000")]) == (
        "name      count\n"
        "a             5\n"
        "long one  1,000"
    )  # fmt: skip
