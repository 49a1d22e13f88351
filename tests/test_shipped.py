"""The shipped config files go by their names, also from a wheel, and can be copied."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tune_cnn
from tune_cnn.cli import main
from tune_cnn.errors import ConfigError
from tune_cnn.sweep.config.shipped import config_path, shipped_folder, shipped_names, sweep_name

ROOT = Path(__file__).parents[1]


def test_a_shipped_file_goes_by_its_name_unless_there_is_such_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_path("quick") == config_path("quick.yaml") == shipped_folder() / "quick.yaml"
    assert config_path("own.yaml") == Path("own.yaml")
    Path("quick").mkdir()  # as by --out quick
    assert config_path("quick") == shipped_folder() / "quick.yaml"
    Path("quick.yaml").touch()
    assert config_path("quick.yaml") == Path("quick.yaml")
    assert sweep_name([config_path("exp1_1"), config_path("exp1_2")]) == "exp1_1-exp1_2"
    assert sweep_name([Path()]) == Path.cwd().name  # so that the only fault told is that it is a folder


def test_every_command_takes_such_a_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "quick", "--only", "quick_K8_L2", "--dry-run"]) == 0
    assert "quick_K8_L2" in capsys.readouterr().out
    arguments = ["trial", "quick", "quick_K8_L2", "--set", "epochs=1", "--set", "data.train_images=100"]
    assert main([*arguments, "--set", "data.test_images=20", "--threads", "1"]) == 0
    assert Path("results/quick_K8_L2.json").exists()


def test_a_mistyped_name_is_told_with_those_there_are(capsys):
    assert main(["sweep", "qick", "zzz", "--dry-run"]) == 2
    message = capsys.readouterr().err
    assert "no such file; did you mean quick?" in message
    assert f"name one, or a shipped one: {', '.join(shipped_names())}" in message
    assert main(["sweep", 300 * "q"]) == 2
    assert "File name too long" in capsys.readouterr().err


def test_a_mistyped_path_is_told_with_the_nearest_file_beside_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/quick.yaml").touch()
    assert main(["sweep", "configs/quik.yaml"]) == 2
    assert capsys.readouterr().err.endswith("; did you mean configs/quick.yaml?\n")


def test_a_shipped_file_that_is_taken_in_place_of_the_users_own_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    shutil.copy(shipped_folder() / "quick.yaml", "configs")
    for edit, told in ("", ""), ("# mine", "quick: using the shipped file; for your own, type configs/quick.yaml\n"):
        with Path("configs/quick.yaml").open("a") as file:
            file.write(edit)
        with pytest.raises(ConfigError, match="'none' matches no name; there are quick_K8_L2"):
            tune_cnn.sweep("quick", only="none")
        assert capsys.readouterr().err == told


def names_below(folder: Path) -> set[str]:
    paths = folder.rglob("*.*")
    return {str(path.relative_to(folder)) for path in paths if path.parent.name != "__pycache__"}


def use(configs: Path) -> None:
    """Leave what a notebook in a clone leaves beside it."""
    for left in ("results/quick_K8_L2.json", "ray_results/quick/sweep.json", ".ipynb_checkpoints/grid.ipynb"):
        (configs / left).parent.mkdir(parents=True)
        (configs / left).touch()


def test_init_copies_what_can_be_changed_and_overwrites_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert "then type: tune-cnn sweep configs/quick.yaml" in capsys.readouterr().out
    assert names_below(Path("configs")) == names_below(shipped_folder()) >= {"quick.yaml", "cluster/slurm.sh"}
    Path("configs/quick.yaml").write_text("mine")
    assert main(["init"]) == 2
    assert "quick.yaml" in capsys.readouterr().err
    assert Path("configs/quick.yaml").read_text() == "mine"


def test_init_copies_nothing_that_a_sweep_left_among_the_files_of_a_clone(tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    shutil.copytree(shipped_folder(), clone)
    use(clone)
    monkeypatch.setattr("tune_cnn.cli.commands.init.shipped_folder", lambda: clone)
    assert main(["init", str(tmp_path / "mine")]) == 0
    assert names_below(tmp_path / "mine") == names_below(shipped_folder())


@pytest.mark.slow
def test_a_wheel_brings_the_shipped_files_and_nothing_that_a_notebook_left_among_them(tmp_path):
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    clone = tmp_path / "clone"
    for folder in ("tune_cnn", "configs"):
        shutil.copytree(ROOT / folder, clone / folder)
    for file in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / file, clone)
    use(clone / "configs")
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path / "wheel", clone], check=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "installed", wheel], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    (tmp_path / "empty").mkdir()

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "tune_cnn", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert names_below(tmp_path / "installed" / "tune_cnn" / "configs") == names_below(shipped_folder())
    assert "6 experiments, 6 trials" in run("sweep", "quick", "--dry-run")
    run("init")
    where = subprocess.run(
        [sys.executable, "-c", "import tune_cnn; print(tune_cnn.__file__)"],
        cwd=tmp_path / "empty", env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(tmp_path / "installed"))
    assert (tmp_path / "empty" / "configs" / "schema.json").exists()
    assert (tmp_path / "empty" / "configs" / "cluster" / "slurm.sh").exists()
