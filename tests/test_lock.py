"""One process at a time runs a sweep, and a lock outlives nobody."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tune_cnn.errors import StorageError
from tune_cnn.sweep import lock
from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.lock import locked, running

HEARTBEAT_S, LEASE_S = 0.2, 1.6
HOLD = f"""
import sys, time
from tune_cnn.sweep import lock
from tune_cnn.sweep.folder import Folder
lock.HEARTBEAT_S, lock.LEASE_S = {HEARTBEAT_S}, {LEASE_S}
with lock.locked(Folder(sys.argv[1], "sweep")) as held:
    print("locked", flush=True)
    while True:
        held.check()
        time.sleep(0.05)
"""


@pytest.fixture(autouse=True)
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_S", HEARTBEAT_S)
    monkeypatch.setattr(lock, "LEASE_S", LEASE_S)


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path: Path) -> Folder:
    """`file://` takes the way that S3 takes."""
    return Folder(str(tmp_path) if request.param == "local" else f"file://{tmp_path}", "sweep")


@pytest.fixture
def local(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path), "sweep")


@pytest.fixture
def remote(tmp_path: Path) -> Folder:
    return Folder(f"file://{tmp_path}", "sweep")


@contextlib.contextmanager
def holder(folder: Folder, *prefix: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", HOLD, folder.root], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "locked\n", process.stderr.read()
        try:
            yield process
        finally:
            process.kill()


def assert_refused(folder: Folder, match: str = "is running this sweep") -> None:
    with pytest.raises(StorageError, match=match), locked(folder):
        pass


def assert_taken_over(folder: Folder, at_once: bool) -> None:
    before = time.monotonic()
    with locked(folder) as held:
        assert (time.monotonic() - before < LEASE_S) is at_once
        held.check()
    assert [name for name in folder.names() if not name.endswith(".tmp")] == []  # of a killed writer


def test_a_second_process_is_refused_and_told_who_runs_the_sweep_and_until_when(folder):
    with holder(folder) as process:
        who = f"process {process.pid} on {socket.gethostname()}"
        end = "when that process ends" if folder.is_local else "2 s after that"
        assert_refused(
            folder,
            f"^{folder}: {who} is running this sweep; wait for it, stop it, or give another name "
            rf"\(last sign of life [01] s ago; the lock frees itself {end}\)$",
        )
        assert running(folder) == who
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert running(folder) is None
        assert_taken_over(folder, at_once=folder.is_local)


def test_a_process_that_was_killed_but_not_yet_buried_holds_nothing(folder):
    with holder(folder) as process:
        os.kill(process.pid, signal.SIGKILL)
        while "Z" not in Path(f"/proc/{process.pid}/stat").read_text():
            time.sleep(0.01)
        assert_taken_over(folder, at_once=folder.is_local)


def test_this_process_cannot_lock_twice_either(folder):
    with locked(folder) as held:
        assert_refused(folder, f"process {os.getpid()} on .* is running this sweep")
        held.check()
    assert [name for name in folder.names() if not name.endswith(".tmp")] == []  # of a killed writer


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_lock_is_released_after_an_error_too(folder, error):
    threads = threading.active_count()
    with pytest.raises(error, match="inside"), locked(folder):
        raise error("inside")
    assert [name for name in folder.names() if not name.endswith(".tmp")] == []  # of a killed writer
    assert threading.active_count() == threads


def test_a_process_id_that_another_process_uses_again_is_no_owner(folder):
    with holder(folder) as process:
        (name,) = {"lock.json"} & set(folder.names()) or folder.names()
        process.kill()
        process.wait()
    folder.write(name, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "renewed": 0}).encode())
    assert running(folder) is None
    assert_taken_over(folder, at_once=folder.is_local)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"pid": "1"}', b'{"beat": null, "pid": 1}'])
def test_a_damaged_lock_is_watched_and_taken_over(remote, content):
    remote.write("lock.json", content)
    assert running(remote) is None
    assert_taken_over(remote, at_once=False)


def test_on_a_disk_of_this_machine_what_a_lock_file_holds_does_not_matter(local):
    local.write("lock.json", b"{")
    (local.local_path / "lock").touch()
    assert_taken_over(local, at_once=True)


def test_on_shared_storage_an_owner_holds_while_the_entry_changes_and_until_its_lease_ends(remote, capsys):
    with holder(remote) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert_taken_over(remote, at_once=False)
        who = f"process {process.pid} on {socket.gethostname()}"
        told = f"{remote}: waiting for a sign of life from {who}; without one, its lease ends in 2 s\n"
        assert capsys.readouterr().err == told


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_containers_that_share_a_host_name_do_not_take_each_others_locks(folder):
    container = ("unshare", "--pid", "--fork", "--kill-child")
    if subprocess.run([*container, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs the right to make a PID namespace")
    with holder(folder, *container):
        assert_refused(folder, "process 1 on .* is running this sweep")  # whose number is that of another one here
        with pytest.raises(AssertionError, match="process 1 on"), holder(folder, *container):  # and of this one
            pass


def test_a_clock_that_is_ten_minutes_off_does_not_matter(remote, monkeypatch):
    clock = lock.clock
    with holder(remote):
        for offset_s in (600, -600):
            monkeypatch.setattr(lock, "clock", lambda offset_s=offset_s: clock() + offset_s)
            monkeypatch.setattr(time, "time", lambda offset_s=offset_s: 1e9 + offset_s)
            assert_refused(remote)


def test_a_holder_that_slept_while_another_took_over_stops_and_leaves_the_others_lock_alone(remote):
    with holder(remote) as process:
        process.send_signal(signal.SIGSTOP)
        with locked(remote) as held:
            process.send_signal(signal.SIGCONT)
            _, message = process.communicate(timeout=60)
            who = f"process {os.getpid()} on {socket.gethostname()}"
            assert f"StorageError: {remote}: {who} took over from this one, since it gave no sign of life" in message
            time.sleep(2 * HEARTBEAT_S)
            held.check()
    assert [name for name in remote.names() if not name.endswith(".tmp")] == []  # of a killed writer


def test_on_a_disk_of_this_machine_a_suspended_holder_stays_one(local):
    with holder(local) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.2 * LEASE_S)
        assert_refused(local, r"last sign of life \d s ago; the lock frees itself when that process ends")
        process.send_signal(signal.SIGCONT)
        time.sleep(2 * HEARTBEAT_S)
        assert process.poll() is None


def test_a_holder_whose_machine_was_suspended_stops_at_once(remote, monkeypatch):
    with locked(remote) as held:
        held.check()
        now = lock.clock()
        monkeypatch.setattr(lock, "clock", lambda: now + 2 * LEASE_S)
        with pytest.raises(StorageError, match=r"this process lost its lock, since it gave no sign of life for 3 s"):
            held.check()


def test_a_holder_whose_lock_is_deleted_stops_within_a_beat(folder):
    with locked(folder) as held:
        for name in folder.names():
            folder.delete(name)
        with pytest.raises(StorageError, match=f"^{folder}: this process lost its lock, .*deleted"):
            check_for(held, 3 * HEARTBEAT_S)


def test_a_holder_whose_storage_fails_tells_the_cause_before_others_take_over(remote, monkeypatch):
    monkeypatch.setattr(Folder, "patience_s", 0.1)
    with locked(remote) as held:
        monkeypatch.setattr(Folder, "_remote", lambda _: refuse("no route to it"))
        check_for(held, LEASE_S / 2)  # it may come back
        with pytest.raises(StorageError, match=r"lock-.*json: cannot be read \(no route to it\)"):
            check_for(held, LEASE_S)
        monkeypatch.undo()


def test_what_a_process_could_not_delete_when_its_storage_failed_holds_until_its_lease_ends(remote, monkeypatch):
    monkeypatch.setattr(Folder, "patience_s", 0.1)
    with locked(remote) as held, monkeypatch.context() as failing:
        failing.setattr(Folder, "_remote", lambda _: refuse("no route to it"))
        with pytest.raises(StorageError, match="no route"):
            check_for(held, 2 * LEASE_S)
    assert len(remote.names()) == 1
    assert_taken_over(remote, at_once=False)


def check_for(held: lock.Lock, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        held.check()
        time.sleep(0.01)


def refuse(reason: str) -> None:
    raise OSError(reason)


class SlowFolder(Folder):
    """What is written is there, or at least said to be there, only after a while; listings are of the moment."""

    def write(self, name: str, content: bytes) -> None:
        time.sleep(random.choice([0, 0.3 * HEARTBEAT_S, HEARTBEAT_S]) * random.random())
        super().write(name, content)
        time.sleep(random.choice([0, 0.3 * HEARTBEAT_S, HEARTBEAT_S]) * random.random())


@pytest.mark.slow
def test_of_contenders_on_a_slow_storage_one_at_a_time_holds_the_lock(tmp_path):
    """Several who come at about the same moment, also upon the lock of a dead one; all but one may be refused."""
    for number in range(20):
        folder = SlowFolder(f"file://{tmp_path}", str(number))
        if number % 2:
            folder.write("lock-0.json", b"dead")
        holding, most, winners, refused = [], [], [], []

        def contend(name: int) -> None:
            time.sleep(random.random() * HEARTBEAT_S)
            try:
                with locked(folder) as held:  # noqa: B023
                    holding.append(name)  # noqa: B023
                    most.append(len(holding))  # noqa: B023
                    with contextlib.suppress(StorageError):
                        check_for(held, 5 * HEARTBEAT_S)
                        winners.append(name)  # noqa: B023
                    holding.remove(name)  # noqa: B023
            except StorageError as error:
                refused.append(str(error))  # noqa: B023

        threads = [threading.Thread(target=contend, args=(name,)) for name in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert max(most) == 1, "two held it at once"
        assert winners, refused
        assert all("is running this sweep" in message for message in refused)
        assert [name for name in folder.names() if not name.endswith(".tmp")] == []  # of a killed writer


def test_only_file_systems_of_this_machine_alone_are_left_to_its_kernel(tmp_path):
    assert Folder(str(tmp_path), "not/yet").is_own_disk
    assert not Folder("/proc/self").is_own_disk  # of a kind that is not known
