"""Every finished experiment gets its JSON file."""

from pathlib import Path

import pytest

from tune_cnn.errors import StorageError
from tune_cnn.result_files import load_experiment, load_result_file
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.export import export
from tune_cnn.sweep.storage import SweepFolder
from tune_cnn.train_results import FitResult

SETTINGS = Settings(seed=42, filters_per_layer=(32,), reg=2e-3, early_stopping=None)
SHAPES = Settings(seed=0, data=DataSettings(source="shapes", in_size=(3, 8, 8), train_images=100, test_images=30))
RESULTS = FitResult(2, [2.3, float("nan")], [10.0, 20.0], [2.3, 2.2], [11.0, 12.0])


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(str(tmp_path / "ray_results"), "sweep")
    folder.save_experiments({"exp1_1_K32_L2": SETTINGS, "exp1_2_L2_K32": SETTINGS, "shapes": SHAPES})
    return folder


def finish(folder: SweepFolder, settings: Settings) -> None:
    folder.trial(settings).finish(settings, RESULTS, {"id": settings.trial_id, "test_accuracy": 12.5}, {})


def test_experiments_that_share_a_trial_each_get_a_file_under_their_own_name(folder, tmp_path):
    finish(folder, SETTINGS)
    files, unfinished = export(folder, tmp_path / "results")
    assert files == [tmp_path / "results" / "exp1_1_K32_L2.json", tmp_path / "results" / "exp1_2_L2_K32.json"]
    assert unfinished == ["shapes"]
    assert sorted((tmp_path / "results").iterdir()) == files
    for path in files:
        config, results, trial = load_result_file(path)
        assert config["run_name"] == path.stem
        assert results.first_difference(RESULTS) is None
        assert trial == {"id": SETTINGS.trial_id, "test_accuracy": 12.5}


def test_the_config_repeats_the_run(folder, tmp_path):
    for settings in (SETTINGS, SHAPES):
        finish(folder, settings)
    export(folder, tmp_path / "results")
    config, _ = load_experiment(tmp_path / "results" / "exp1_1_K32_L2.json")
    assert config == {
        "run_name": "exp1_1_K32_L2", "out_dir": str(tmp_path / "results"), "seed": 42, "bs_train": 128, "bs_test": 32,
        "batches": 100, "epochs": 100, "early_stopping": None, "checkpoints": None, "lr": 0.001, "reg": 0.002,
        "filters_per_layer": [32], "layers_per_block": 2, "pool_every": 2, "hidden_dims": [1024], "ycn": False,
        "kw": {},
    }  # fmt: skip
    config, _ = load_experiment(tmp_path / "results" / "shapes.json")
    assert config["kw"] == {"data": {"source": "shapes", "in_size": [3, 8, 8], "train_images": 100, "test_images": 30}}


def test_a_damaged_record_is_not_exported_and_leaves_an_older_file_alone(folder, tmp_path):
    finish(folder, SHAPES)
    export(folder, tmp_path / "results")
    before = (tmp_path / "results" / "shapes.json").read_bytes()
    folder.trial(SHAPES).folder.write("record.json", b'{"config": {}}')
    assert export(folder, tmp_path / "results") == ([], ["exp1_1_K32_L2", "exp1_2_L2_K32", "shapes"])
    assert (tmp_path / "results" / "shapes.json").read_bytes() == before


def test_a_name_that_would_leave_the_folder_is_refused_and_nothing_is_written(folder, tmp_path):
    finish(folder, SETTINGS)
    folder.save_experiments({"fine": SETTINGS, "../escaped": SETTINGS})
    with pytest.raises(StorageError, match=r"sweep\.json: damaged \('\.\./escaped' cannot be a name; use at most 100"):
        export(folder, tmp_path / "results")
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "escaped.json").exists()
