"""What the README says can be typed, and is true of the house."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tune_cnn import data
from tune_cnn.cli.main import parser
from tune_cnn.settings import KEYS, DataSettings
from tune_cnn.sweep.config.load import load_experiments

ROOT = Path(__file__).parent.parent
README, CONFIGS, INSIDE = [(ROOT / folder / "README.md").read_text() for folder in (".", "configs", "tune_cnn")]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README + CONFIGS + INSIDE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^(?:\$ |.*&& )?tune-cnn (.+?)(?: +#.*)?$", "\n".join(text for _, text in BLOCKS), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_typed(command):
    options = parser().parse_args(shlex.split(command))
    for file in getattr(options, "files", []):
        assert (ROOT / file).exists()


def test_the_commands_are_found():
    assert {"sweep", "trial", "board", "export", "plot"} <= {command.split()[0] for command in COMMANDS}


def test_the_config_files_that_they_show_are_shipped():
    examples = [text for language, text in BLOCKS if language == "yaml"]
    assert len(examples) == 5
    files = [(ROOT / "configs" / f"{name}.yaml").read_text() for name in ("exp1_1", "search", "asha", "resnet")]
    assert all(any(example in file for file in files) for example in examples)


def test_every_setting_is_explained():
    explained = re.findall(r"`(\w+)`", CONFIGS.partition("## Settings")[2].partition("## Images")[0])
    assert set(KEYS) <= {*explained, "model_fingerprint"}  # that is found out


def test_links_and_pictures_are_there():
    for folder, text in ((".", README), ("configs", CONFIGS), ("tune_cnn", INSIDE)):
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / folder / link).exists(), link


def test_its_table_of_configs_names_every_file():
    named = re.findall(r"^\| `configs/(\w+)\.yaml` \|", CONFIGS, re.MULTILINE)
    assert sorted(named) == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))


def test_it_says_how_many_experiments_and_trials_there_are():
    experiments = load_experiments([ROOT / "configs" / "exp1_1.yaml", ROOT / "configs" / "exp1_2.yaml"])
    trials = {experiment.settings.trial_id for experiment in experiments}
    assert f"# {len(experiments)} experiments, {len(trials)} trials" in README


def test_its_tree_names_every_room():
    (tree,) = [text for _, text in BLOCKS if text.startswith("tune_cnn/\n")]
    package = ROOT / "tune_cnn"
    for path in package.iterdir():
        if path.name.startswith("__") or path.name in ("py.typed", "README.md"):
            continue
        assert re.search(rf"\b{path.stem}{'/' if path.is_dir() else '[.]py'}", tree), path.name
    for name in re.findall(r"(\w+(?:\.py|/))(?= |$)", tree):
        assert list(package.rglob(name.rstrip("/"))) or (ROOT / name).exists() or name == "tune_cnn/", name


def test_the_test_command_is_the_one_that_is_checked():
    script = (ROOT / ".ci" / "run").read_text()
    extract = next(line for line in script.splitlines() if line.startswith("command="))
    found = subprocess.run(
        ["bash", "-c", f'{extract}; echo "$command"'], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "pip install" in found
    assert "pytest" in found


def test_the_share_of_the_validation_set_is_the_one_it_names():
    assert f"{data.VALIDATION_SHARE:.0%}".replace("%", " %") in README
    images = data.load(DataSettings("shapes", train_images=100, test_images=5, in_size=(3, 8, 8)))
    assert (images.train.count, images.validation.count) == (85, 15)
