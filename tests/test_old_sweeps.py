"""A sweep's folder as version 0.1.0 left it, one trial after two of three epochs: it is read, and continued."""

import json
import zipfile
from pathlib import Path

import pytest

from tune_cnn.cli import main
from tune_cnn.sweep.config.load import load_experiments
from tune_cnn.training.state import load_state

IDS = {"old_K2_L1": "f9a6cf67", "old_K2_L2": "9dfb29ad", "old_K3_L1": "0036eefd", "old_K3_L2": "a26e9dbe"}


@pytest.fixture
def old_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its storage; `old.yaml` lies in the working folder."""
    with zipfile.ZipFile(Path(__file__).with_name("sweep_0_1_0.zip")) as archive:
        archive.extractall(tmp_path)
    storage = tmp_path / "ray_results"
    storage.mkdir()
    (tmp_path / "old").rename(storage / "old")
    monkeypatch.chdir(tmp_path)
    return storage


def records(storage: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in storage.glob("old/trials/*/record.json")}


def test_trial_ids_are_as_they_were(old_sweep):
    assert {e.name: e.settings.trial_id for e in load_experiments([Path("old.yaml")])} == IDS


def test_status_export_and_report_read_it(old_sweep, capsys):
    assert main(["status", "old"]) == 0
    shown = capsys.readouterr().out
    assert all(f"K{name[5]}_L{name[8]}_{trial_id}" in shown for name, trial_id in IDS.items())
    assert main(["export", "old"]) == 0
    assert {"old_K2_L1.json", "old_K2_L2.json", "old_K3_L1.json"} <= {path.name for path in Path("results").iterdir()}
    exported = json.loads(Path("results/old_K2_L2.json").read_text())
    assert exported["results"] == json.loads(records(old_sweep)["K2_L2_9dfb29ad"])["results"]
    assert main(["report", "old"]) == 0
    assert "old_K3_L1" in Path("results/old_report.html").read_text()


@pytest.mark.slow
def test_its_command_continues_it(old_sweep):
    finished = records(old_sweep)
    assert len(finished) == 3
    before = load_state(old_sweep / "old/trials/K3_L2_a26e9dbe/epoch_0002.pt")["history"]
    assert main(["sweep", "old.yaml"]) == 0
    now = records(old_sweep)
    assert {label: now[label] for label in finished} == finished, "a finished trial was trained again"
    continued = json.loads(now["K3_L2_a26e9dbe"])
    assert continued["results"]["num_epochs"] == 3
    assert continued["results"]["train_loss"][: len(before["train_loss"])] == before["train_loss"]
    assert len(list(Path("results").glob("old_K*.json"))) == 4
