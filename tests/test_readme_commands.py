"""Every command and every Python example of the README, typed as it stands there, in its order, in one folder.

The config files there are copies with fewer images and epochs.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
SHELL = "\n".join(text for language, text in BLOCKS if language == "bash")
COMMANDS = re.findall(r"^(?:.*&& )?(tune-cnn .+?)(?: +#.*)?$", SHELL, re.MULTILINE)
PYTHON = [text for language, text in BLOCKS if language == "python"]
# What is added to a command that would take minutes.
SHORTER = {"bench": "--rounds 1 --batches 2 --only K32_L2"}
# What needs several machines: test_nodes.py has a cluster.
ELSEWHERE = [command for command in COMMANDS if "--address FIRST" in command]
SMALLER = {
    r"\bepochs: \d+": "epochs: 2",
    r"\bsamples: \d+": "samples: 3",
    r"\bgrace_period: \d+": "grace_period: 1",
    r"^data: .*$": "data: {source: shapes, in_size: [3, 16, 16], train_images: 60, test_images: 20}",
}
CODES = {"compare": {0, 1}}  # 1: cells differ


def id_of(command: str) -> str:
    return command.removeprefix("tune-cnn ")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "configs", home / "configs")
    for path in (home / "configs").glob("*.yaml"):
        text = path.read_text()
        for pattern, replacement in SMALLER.items():
            text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
        path.write_text(text)
    return home


def environment() -> dict[str, str]:
    """In which `tune-cnn` is the one that is tested."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ELSEWHERE], ids=id_of)
def test_a_command_runs_as_it_is_written(home, command):
    arguments = shlex.split(command)
    arguments += shlex.split(SHORTER.get(arguments[1], ""))
    if arguments[1] == "board":
        assert_serves(home, arguments)
        return
    done = subprocess.run(
        arguments, cwd=home, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode in CODES.get(arguments[1], {0}), done.stdout + done.stderr
    assert done.stdout
    assert "Traceback" not in done.stderr


def assert_serves(home: Path, arguments: list[str]) -> None:
    with subprocess.Popen([*arguments, "--port", "16116"], cwd=home, env=environment()) as process:
        try:
            ended = time.monotonic() + 60
            page = ""
            while "TensorBoard" not in page and time.monotonic() < ended:
                try:
                    page = urlopen("http://127.0.0.1:16116/", timeout=10).read().decode()
                except OSError:
                    time.sleep(0.5)
            assert "TensorBoard" in page
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.mark.slow
def test_the_examples_for_python_run_on_the_smaller_images(home):
    sweeps = "\n".join(text for text in PYTHON if "tune_cnn.sweep(" in text or "sweep.model(" in text)
    for shipped, smaller in {'sweep("quick")': 'sweep("configs/quick.yaml")', "(24, 24, 3)": "(16, 16, 3)"}.items():
        assert shipped in sweeps
        sweeps = sweeps.replace(shipped, smaller)
    done = subprocess.run(
        [sys.executable, "-c", sweeps + "\nprint(len(sweep.results), scores.shape)"],
        cwd=home, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout.endswith("6 torch.Size([1, 10])\n"), done.stdout + done.stderr


def test_the_cells_of_the_assignment_run_as_they_are_written(tmp_path, monkeypatch, small_archives):
    small_archives("cifar10")
    monkeypatch.chdir(tmp_path)
    (cells,) = [text for text in PYTHON if "run_experiment(" in text]
    found: dict[str, object] = {}
    exec(cells, found)
    assert found["config"]["run_name"] == "exp1_1_K32_L2"


def test_all_of_them_are_found():
    assert len(COMMANDS) >= 18
    assert len(PYTHON) == 3
    assert len(ELSEWHERE) == 1
