"""One process at a time runs a sweep, and a lock outlives nobody."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tune_cnn.errors import StorageError
from tune_cnn.sweep import lock
from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.lock import locked

HOLD = """
import sys
from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.lock import locked
with locked(Folder(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


@pytest.fixture
def holder(folder: Folder) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


@pytest.fixture
def written(folder: Folder) -> Callable[..., None]:
    """Writes the lock of a holder of this host that is alive, but for what the arguments say."""

    def write(**changes: object) -> None:
        content = json.loads(lock._content("another's")) | changes
        folder.write("lock.json", json.dumps(content).encode())

    return write


def assert_taken_over(folder: Folder) -> None:
    with locked(folder):
        assert json.loads(folder.read("lock.json"))["pid"] == os.getpid()
    assert folder.names() == []


def test_a_second_process_is_refused_and_told_who_runs_the_sweep(folder, holder):
    who = f"process {holder.pid} on {socket.gethostname()}"
    message = f"^{folder}: {who} is running this sweep; wait for it, stop it, or give another --name"
    with pytest.raises(StorageError, match=message), locked(folder):
        pass
    holder.communicate()  # it ends, and its lock with it
    assert folder.names() == []
    assert_taken_over(folder)


def test_the_lock_of_a_killed_process_is_taken_over(folder, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert folder.names() == ["lock.json"]
    assert_taken_over(folder)


def test_a_process_that_was_killed_but_not_yet_buried_holds_nothing(folder, holder):
    os.kill(holder.pid, signal.SIGKILL)
    while "Z" not in Path(f"/proc/{holder.pid}/stat").read_text():
        time.sleep(0.01)
    assert_taken_over(folder)


def test_this_process_cannot_lock_twice_either(folder):
    with locked(folder):
        with pytest.raises(StorageError, match=f"process {os.getpid()} on .* is running this sweep"), locked(folder):
            pass
        assert folder.names() == ["lock.json"]  # the first lock holds on


def test_a_number_that_another_process_uses_again_is_no_holder(folder, written):
    written(started="12345")
    assert_taken_over(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"pid": "1"}', b'{"pid": 1, "beat": null}'])
def test_a_damaged_lock_is_taken_over(folder, monkeypatch, content):
    monkeypatch.setattr(lock, "_SETTLE_S", 0.01)
    folder.write("lock.json", content)
    assert_taken_over(folder)


def test_a_lock_that_is_half_written_is_waited_for(folder, written, monkeypatch):
    folder.write("lock.json", b'{"pid"')
    monkeypatch.setattr(lock.time, "sleep", lambda _: written())
    with pytest.raises(StorageError, match=f"process {os.getpid()} on .* is running this sweep"), locked(folder):
        pass


def test_another_hosts_lock_is_stale_only_without_a_beat_for_minutes(folder, written):
    written(host="elsewhere", beat=time.time() - 100)
    with pytest.raises(StorageError, match="on elsewhere is running this sweep"), locked(folder):
        pass
    written(host="elsewhere", beat=time.time() - 1000)
    assert_taken_over(folder)


def test_the_lock_is_renewed_while_it_is_held(folder, monkeypatch):
    monkeypatch.setattr(lock, "_BEAT_S", 0.01)
    with locked(folder):
        first = json.loads(folder.read("lock.json"))
        deadline = time.monotonic() + 10
        while json.loads(folder.read("lock.json"))["beat"] == first["beat"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        now = json.loads(folder.read("lock.json"))
        assert now | {"beat": 0} == first | {"beat": 0}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_lock_is_released_after_an_error_too(folder, error):
    threads = threading.active_count()
    with pytest.raises(error, match="inside"), locked(folder):
        raise error("inside")
    assert folder.names() == []
    assert threading.active_count() == threads


def test_a_process_that_slept_while_another_took_over_leaves_the_others_lock_alone(folder, written, monkeypatch):
    monkeypatch.setattr(lock, "_BEAT_S", 0.01)
    with locked(folder):
        written(host="elsewhere")
        theirs = folder.read("lock.json")
        time.sleep(0.1)
        assert folder.read("lock.json") == theirs
    assert folder.read("lock.json") == theirs


def test_of_many_who_find_one_stale_lock_one_takes_over(folder, written):
    written(pid=2**22 + 1)
    taken, refused, ready = [], [], threading.Barrier(8)

    def contend() -> None:
        ready.wait()
        try:
            with locked(folder):
                taken.append(1)
                deadline = time.monotonic() + 30
                while len(taken) + len(refused) < 8 and time.monotonic() < deadline:
                    time.sleep(0.01)
        except StorageError:
            refused.append(1)

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 7)


def test_one_who_looked_before_another_took_over_does_not_win_too(folder, written, monkeypatch):
    # The slower one would delete the lock of the faster one, which it took for the stale one.
    written(pid=2**22 + 1)
    looked, was_replaced, winners = threading.Event(), threading.Event(), []
    is_stale = lock._is_stale

    def slowly(holder: dict[str, object]) -> bool:
        stale = is_stale(holder)
        if threading.current_thread().name == "slow":
            looked.set()
            was_replaced.wait()
        return stale

    def take() -> None:
        try:
            with locked(folder):
                winners.append(threading.current_thread().name)
                time.sleep(0.8)
        except StorageError:
            pass

    monkeypatch.setattr(lock, "_is_stale", slowly)
    slow, fast = (threading.Thread(target=take, name=name) for name in ("slow", "fast"))
    slow.start()
    looked.wait()
    fast.start()
    time.sleep(1)  # longer than anyone should wait who relied on time alone
    was_replaced.set()
    slow.join()
    fast.join()
    assert len(winners) == 1


def test_on_remote_storage_the_last_of_two_writers_wins(tmp_path, monkeypatch):
    folder = Folder(f"mock://{tmp_path}", "sweep")
    with locked(folder):
        with pytest.raises(StorageError, match="is running this sweep"), locked(folder):
            pass
        assert folder.names() == ["lock.json"]
    assert folder.names() == []

    def overtaken(_: float) -> None:
        folder.write("lock.json", json.dumps({"host": "elsewhere", "pid": 7, "beat": time.time()}).encode())

    monkeypatch.setattr(lock.time, "sleep", overtaken)
    with pytest.raises(StorageError, match="process 7 on elsewhere is running this sweep"), locked(folder):
        pass
    assert folder.names() == ["lock.json"]
