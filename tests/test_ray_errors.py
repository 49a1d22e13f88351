"""Why Ray does not start, and why its processes end; and that a user's files in the working folder are no reason."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_sweep import CONFIG

from tune_cnn.sweep.ray_errors import last_words, why_no_start, words_of_dead_workers

SHADOWS = ["timeit", "random", "logging", "numpy", "torch", "ray", "tensorboard", "signal", "queue", "tempfile"]
DIED = """Failure # 1 (occurred at 2026-11-26_01-27-00)
The actor died unexpectedly before finishing this task.
\tpid: 28309
Failure # 2 (occurred at 2026-11-26_01-27-08)
The actor died unexpectedly before finishing this task.
\tclass_name: with_resources.<locals>.ResourceTrainable
\tpid: 28662
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: End of file.
The actor never ran - it was cancelled before it started running.
"""
RAISED = """Failure # 1 (occurred at 2026-11-26_01-25-37)
The actor died because of an error raised in its creation task, \x1b[36mray::Trainable.__init__()\x1b[39m (pid=27145)
           ^^^^^^^^^
  File "x.py", line 8, in find_spec
    raise ImportError("libfoo.so.7: cannot open shared object file")
ImportError: libfoo.so.7: cannot open shared object file
"""
TRACEBACK = """Traceback (most recent call last):
  File "default_worker.py", line 7, in <module>
ImportError: cannot import name 'default_timer' from 'timeit'
[2026-11-26 01:27:08,012 E 28662 28662] logging.cc:474: *** stack
    @     0x7fec2ba5a050  (unknown)  (unknown)
"""


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "error", "message"),
    [
        (
            {"CUDA_VISIBLE_DEVICES": "0"},
            ValueError("Attempting to start raylet with 2 GPU, but CUDA_VISIBLE_DEVICES contains ['0']."),
            "gpus 2: CUDA_VISIBLE_DEVICES=0 allows fewer; unset it, or leave gpus out",
        ),
        (
            {"TMPDIR": "/long"},
            OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /long/ray/..."),
            "TMPDIR=/long: too long a path for the sockets of Ray; set a shorter one, such as RAY_TMPDIR=/tmp",
        ),
        (
            {"TMPDIR": "/tmp", "RAY_TMPDIR": "/long"},
            OSError("AF_UNIX path length cannot exceed 107 bytes"),
            "RAY_TMPDIR=/long: too long a path for the sockets of Ray; set a shorter one, such as RAY_TMPDIR=/tmp",
        ),
        (
            {"RAY_TMPDIR": "/file"},
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "/file/ray"),
            "RAY_TMPDIR=/file: cannot be used by Ray (Not a directory); set RAY_TMPDIR to a folder that can be written",
        ),
        (
            {},
            PermissionError(errno.EACCES, "Permission denied", "/tmp/ray"),
            "/tmp: cannot be used by Ray (Permission denied); set RAY_TMPDIR to a folder that can be written",
        ),
        (
            {},
            ValueError(
                "After taking ... adjust these settings with ray.init(memory=<bytes>, object_store_memory=<..>)"
            ),
            "the images take 3.0 GB, more than this machine can share; use fewer or smaller ones",
        ),
    ],
)
def test_what_hinders_ray_is_one_line_with_the_variable_and_the_remedy(monkeypatch, variables, error, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert why_no_start(error, 2, 3_000_000_000) == message


def test_too_few_open_files_and_what_is_not_known_have_a_remedy_too(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda which: (40, 40))
    error = RuntimeError("Timed out waiting for file\n/tmp/ray/session/gcs_server_port")
    assert why_no_start(error, None, 0).endswith("only 40 files may be open at once; type: ulimit -n 1024")
    monkeypatch.setattr("resource.getrlimit", lambda which: (4096, 4096))
    assert why_no_start(error, None, 0) == (
        "Ray does not start (Timed out waiting for file /tmp/ray/session/gcs_server_port); "
        "see what its processes say in /tmp/ray/session_latest/logs"
    )


@pytest.mark.parametrize(
    ("error", "log", "words"),
    [
        (DIED, TRACEBACK, "ImportError: cannot import name 'default_timer' from 'timeit'"),
        (DIED, "libfoo.so.7: undefined symbol\n", "libfoo.so.7: undefined symbol"),
        (DIED, ":job_id:01000000\n:actor_name:CnnTrainable\n", "killed, perhaps out of memory"),
        (RAISED, "", "ImportError: libfoo.so.7: cannot open shared object file"),
        ("Failure # 1 ()\nThe actor is dead because its node has died. Node Id: 1\n", "", "its machine was lost"),
        ("", "", "it left no reason"),
    ],
)  # fmt: skip
def test_a_process_that_ended_is_explained_by_its_own_last_words(tmp_path: Path, error, log, words):
    (tmp_path / "worker-aa-01000000-28309.err").write_text("another one\n")
    (tmp_path / "worker-bb-01000000-28662.err").write_text(log)
    assert last_words(error, tmp_path) == words


@pytest.mark.parametrize(
    ("started", "said", "words"),
    [
        ([0], "Error in the proxy's hook\nvault: no answer\n", "vault: no answer"),
        ([0, 0], "", "killed, perhaps out of memory"),
        ([0, os.getpid()], "a remark\n", None),
        ([], "a remark\n", None),
    ],
)
def test_worker_processes_that_end_before_they_are_ready_say_why(tmp_path: Path, started, said, words):
    gone = subprocess.Popen(["true"])
    gone.wait()
    lines = [
        f"(raylet) worker_pool.cc:564: Started worker process with pid {pid or gone.pid} worker_id=2\n"
        for pid in started
    ]
    (tmp_path / "raylet.out").write_text("".join(lines))
    (tmp_path / "raylet.err").write_text(said)
    assert words_of_dead_workers(tmp_path) == words


@pytest.mark.slow
def test_a_worker_that_cannot_start_ends_the_sweep_with_its_reason(tmp_path):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif any('default_worker' in word for word in sys.orig_argv):\n    raise SystemExit('no vault')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tune_cnn", "sweep", "tiny.yaml"],
        cwd=tmp_path,
        env={**os.environ, "RAY_AUTH_MODE": "token", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.endswith("no vault); fix that and try again\n")


@pytest.mark.slow
@pytest.mark.parametrize("command", [["-m", "tune_cnn"], ["-c", "from tune_cnn.cli import run; run()"]])
def test_files_in_the_working_folder_are_never_imported(tmp_path, command):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit(f'{__file__} was imported')\n")
    isolated = ["-P"] if command[0] == "-c" else []  # as the script `tune-cnn`, which Python does not find here either
    done = subprocess.run(
        [sys.executable, *isolated, *command, "sweep", "tiny.yaml", "--set", "epochs=1"],
        cwd=tmp_path,
        env={**os.environ, "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "was imported" not in done.stderr
    assert "2 result files" in done.stdout
