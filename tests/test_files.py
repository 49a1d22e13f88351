"""Files that others have made: whatever stands in the place of one of ours is named, at once and in little memory."""

import io
import json
import os
import resource
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_sweep import train, write_config

from tune_cnn.cli import main
from tune_cnn.errors import ConfigError, ResultError
from tune_cnn.files import parse_json, read_file, replace_file, temporary_folder
from tune_cnn.settings import Settings, parse_settings
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.training.state import load_state, save_state, state_from_bytes


def bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def link_to_pipe(path: Path) -> None:
    os.mkfifo(f"{path}.pipe")
    path.symlink_to(f"{path.name}.pipe")


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 5_000_000_000)


# What may stand in a file's place, and what is said about it.
ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a named pipe": (os.mkfifo, r"not a regular file"),
    "a link to a named pipe": (link_to_pipe, r"not a regular file"),
    "a link to /dev/zero": (lambda path: path.symlink_to("/dev/zero"), r"not a regular file"),
    "a socket": (bind_socket, r"not a regular file"),
    "a folder": (Path.mkdir, r"not a regular file"),
    "a loop of links": (lambda path: path.symlink_to(path.name), r"not a regular file"),
    "5 GB": (sparse, r"5\.0 GB, where at most 134 MB are expected"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_or_too_large_is_named(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make, fault = ODD[kind]
    make(Path("odd.json"))
    with pytest.raises(ResultError, match=rf"^odd\.json: cannot be read \({fault}\); name another"):
        read_file(Path("odd.json"))


def test_a_file_and_a_link_to_it_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to("a")
    assert read_file(tmp_path / "a") == read_file(tmp_path / "b", most=7) == b"content"
    with pytest.raises(FileNotFoundError, match="none"):
        read_file(tmp_path / "none")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the finished sweep `tiny` and its result files in `out`."""
    home = tmp_path_factory.mktemp("strangers")
    train(write_config(home), SweepFolder(str(home), "tiny"))
    assert main(["report", str(home / "tiny"), "--out", str(home / "out")]) == 0
    return home


@contextmanager
def swapped(path: Path, make: Callable[[Path], object]) -> Iterator[None]:
    """Put something else in a file's place for a while."""
    kept = path.with_name(f".{path.name}.kept")
    if path.exists():
        path.rename(kept)
    make(path)
    try:
        yield
    finally:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        Path(f"{path}.pipe").unlink(missing_ok=True)
        if kept.exists():
            kept.rename(path)


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "a socket"])
def test_commands_name_what_is_no_file(home, kind, capsys):
    make, fault = ODD[kind]
    (record,) = home.glob("tiny/trials/K4*/record.json")
    places = {
        record: (0, "status", str(home / "tiny")),
        home / "tiny" / "sweep.json": (2, "status", str(home / "tiny")),
        home / "tiny" / "lock.json": (0, "status", str(home / "tiny")),
        home / "out" / "tiny_L1_K4.json": (0, "plot", "tiny*", "--results", str(home / "out")),
        home / "tiny.yaml": (2, "trial", str(home / "tiny.yaml"), "tiny_L1_K4"),
    }
    for path, (exit_code, *command) in places.items():
        with swapped(path, make):
            assert main(command) == exit_code
        shown = "".join(capsys.readouterr())
        assert path.name == "lock.json" or path.name in shown
        if path.suffix == ".json" and path.name != "lock.json":
            assert fault.replace("\\", "") in shown


def test_report_goes_on_without_a_record_that_is_no_file(home, tmp_path, capsys):
    (record,) = home.glob("tiny/trials/K4*/record.json")
    with swapped(record, os.mkfifo):
        assert main(["report", str(home / "tiny"), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "tiny_L1_K6.json").exists()


# Memory: Python and PyTorch alone take about 0.5 GB

WIDE = {
    "lists": lambda: b'{"config": {}, "results": [' + b"[]," * 40_000_000 + b"1]}",
    "numbers": lambda: b'{"results": {"test_acc": [' + b"99.9," * 24_000_000 + b"1]}}",
    "texts": lambda: b'{"results": ["\xc3\xa9",' + b'"abcdefghijklmnop",' * 6_000_000 + b"1]}",
    "one text": lambda: b'"\xf0\x9f\x98\x80' + b"a" * 120_000_000 + b'"',
    "deep": lambda: b"[" * 1_000_000,
}


@pytest.mark.parametrize("kind", WIDE)
def test_json_that_would_fill_the_memory_is_refused(kind):
    fault = r"^it would take .* of memory, more than any file of ours$|^lists or objects nested too deep$"
    with pytest.raises(ValueError, match=fault):
        parse_json(WIDE[kind]())


def test_a_million_losses_are_read():
    assert len(parse_json(json.dumps({"train_loss": [2.302585092994046] * 1_000_000}, indent=2).encode())) == 1


WATCHED = """
import sys
from pathlib import Path
from typing import Any
from tune_cnn.cli import main
code = main(sys.argv[1:])
print(*(line for line in Path("/proc/self/status").read_text().split("\\n") if line.startswith("VmHWM")))
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the largest memory from /proc")
@pytest.mark.parametrize("kind", ["lists", "one text"])
def test_a_command_refuses_wide_json_within_1_gb(home, kind):
    command = [sys.executable, "-c", WATCHED, "status", str(home / "tiny")]
    with swapped(home / "tiny" / "sweep.json", lambda path: path.write_bytes(WIDE[kind]())):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("loading PyTorch")]
    assert done.returncode == 2
    assert "sweep.json: damaged (it would take " in line
    memory_kb = int(done.stdout.split()[1])
    assert memory_kb < 1_000_000


# Checkpoints


def zipped(size: int, compression: int, copies: int = 1) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as part:
            for _ in range(size // 1_000_000):
                part.write(bytes(1_000_000))
        archive.filelist += archive.filelist * (copies - 1)  # whose entries all name the same bytes
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "content",
    [zipped(500_000_000, zipfile.ZIP_DEFLATED), zipped(1_000_000, zipfile.ZIP_STORED, copies=500)],
    ids=["deflated", "overlapping"],
)
def test_a_checkpoint_that_unpacks_to_more_than_itself_is_refused(content):
    assert len(content) < 2_000_000
    with pytest.raises(ResultError, match=r"^bomb\.pt: damaged, or not a checkpoint of ours; delete it"):
        state_from_bytes(content, "bomb.pt")


def test_a_checkpoint_that_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "run.pt")
    with pytest.raises(ResultError, match=r"run\.pt: cannot be read \(not a regular file\)"):
        load_state(tmp_path / "run.pt")


def test_a_trial_falls_back_from_a_checkpoint_that_is_no_file_or_too_large(home):
    trial = SweepFolder(str(home), "other").trial(Settings(filters_per_layer=(4,)))
    trial.folder.local_path.mkdir(parents=True)
    save_state(trial.folder.local_path / "epoch_0001.pt", {"weights": torch.ones(3), "best_weights": {}})
    os.mkfifo(trial.folder.local_path / "epoch_0002.pt")
    sparse(trial.folder.local_path / "epoch_0003.pt")
    loaded: list[dict[str, Any]] = []
    warnings = trial.resume(loaded.append)
    assert [state["weights"].tolist() for state in loaded] == [[1, 1, 1]]
    assert [warning.partition(": damaged")[0][-8:] for warning in warnings] == ["_0003.pt", "_0002.pt"]


# Counts


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"layers_per_block": 10**9}, r"1,000,000,000 conv layers; give at most 1,000"),
        ({"filters_per_layer": [1] * 2000}, r"4,000 conv layers"),
        ({"hidden_dims": [1] * 2000}, r"2,000 hidden layers"),
        ({f"key {i}": 1 for i in range(100_000)}, r"^settings: 100 problems\n"),
    ],
)
def test_settings_of_absurd_counts_are_refused(settings, fault):
    with pytest.raises(ConfigError, match=fault):
        parse_settings(settings)


def test_status_names_an_absurd_depth(home, capsys):
    (record,) = home.glob("tiny/trials/K4*/record.json")
    absurd = record.read_text().replace('"layers_per_block": 1', '"layers_per_block": 1000000000')
    with swapped(record, lambda path: path.write_text(absurd)):
        assert main(["status", str(home / "tiny")]) == 0
    assert "record.json: damaged (layers_per_block: 1,000,000,000 conv layers; " in capsys.readouterr().out


# What reaches the terminal

CONTROL_TEXT = "\x1b[2J\x1b]52;c;aGk=\x07\x9b1m\u202eabc\u2066\r\x7f"
HARMLESS = r"\x1b[2J\x1b]52;c;aGk=\x07\x9b1m\u202eabc\u2066\r\x7f"


def test_texts_of_a_sweep_cannot_steer_the_terminal(home, capsys):
    (record,) = home.glob("tiny/trials/K4*/record.json")
    (failed,) = home.glob("tiny/trials/K6*/record.json")
    kept = json.loads(record.read_text())
    unprintable = json.dumps({**kept, "trial": {**kept["trial"], "stop_reason": CONTROL_TEXT}})
    error = failed.with_name("error.txt")
    with (
        swapped(record, lambda path: path.write_text(unprintable)),
        swapped(failed, lambda _: None),
        swapped(error, lambda path: path.write_text(CONTROL_TEXT)),
    ):
        assert main(["status", str(home / "tiny")]) == 0
    shown = capsys.readouterr().out
    assert all(char.isprintable() for char in shown.replace("\n", ""))
    assert HARMLESS in shown
    assert f"failed: {HARMLESS.partition(chr(92) + 'r')[0]}" in shown


def test_names_of_files_cannot_steer_the_terminal(tmp_path, capsys):
    (tmp_path / f"{CONTROL_TEXT}.json").write_text("{}")
    assert main(["plot", "*", "--results", str(tmp_path)]) == 2
    assert main(["trial", str(tmp_path / f"{CONTROL_TEXT}.yaml"), "name"]) == 2
    shown = capsys.readouterr().err
    assert all(char.isprintable() for char in shown.replace("\n", ""))
    assert shown.count(HARMLESS) == 2


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_the_file_for_which_there_is_no_room_is_named(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{tmp_path}/a.json'"):
            replace_file(tmp_path / "a.json", bytes(101))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not any(tmp_path.iterdir())


# --- temporary folders -----------------------------------------------------------------------------------------------

LEAVE_BEHIND = """
import sys
from tune_cnn.files import temporary_folder
with temporary_folder() as folder:
    (folder / "inner").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_the_temporary_folder_of_a_killed_process_is_deleted_by_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    another = tmp_path / "another"
    another.mkdir()
    with subprocess.Popen([sys.executable, "-c", LEAVE_BEHIND], stdout=-1, stdin=-1, text=True) as process:
        theirs = Path(process.stdout.readline().strip())
        with temporary_folder() as ours:
            assert sorted(tmp_path.iterdir()) == sorted([another, ours.parent, theirs.parent])
        assert (theirs / "inner").exists()
        process.kill()
        process.wait()
        with temporary_folder() as ours:
            assert sorted(tmp_path.iterdir()) == sorted([another, ours.parent])
    assert list(tmp_path.iterdir()) == [another]
