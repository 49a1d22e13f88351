"""The lock of a sweep: only one process at a time may run it.

On a local disk it is a file lock, which the kernel releases when the process ends. On shared storage it is a lease: a
process writes its own lock file, then lists all; of two, at least the later one sees the other, and deletes its own. As
clocks differ, a file is live if it changes while watched. An owner that cannot renew its file stops before it expires.
"""

import contextlib
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from filelock import FileLock, Timeout

from tune_cnn.errors import ResultError, StorageError
from tune_cnn.files import parse_json
from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.processes import clock, identity, is_alive, is_own_disk, name_of
from tune_cnn.texts import tell

LEASE_S = float(os.environ.get("TUNE_CNN_LEASE_S", "90"))  # stale if unchanged for so long; NFS clients may lag by 60 s
HEARTBEAT_S = LEASE_S / 9


class Lock:
    """The lock of a sweep, renewed by a background thread; `check` raises an error if it was lost."""

    def __init__(self, folder: Folder, by_kernel: bool) -> None:
        self._folder = folder
        self._by_kernel = by_kernel
        self._name = "lock.json" if by_kernel else f"lock-{os.urandom(4).hex()}.json"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._is_gone = False
        self._failure: StorageError | None = None

    def acquire(self) -> None:
        """Acquire it, once the leases of dead owners have expired; raises StorageError if a live process holds it."""
        while True:
            self._write()
            if not (others := _entries(self._folder, but=self._name)):
                return self._thread.start()
            self._folder.delete(self._name)
            tell(f"{self._folder}: waiting for a sign of life of {name_of(others)}", file=sys.stderr)
            for name in _silent(self._folder, others, LEASE_S):
                self._folder.delete(name)
            time.sleep(random.uniform(0, min(clock() - self._renewed, HEARTBEAT_S)))  # the others come at other moments

    def check(self) -> None:
        """Raises StorageError: the lock is lost, or the storage has failed for so long that it may be."""
        if self._is_gone or self._is_overdue():
            if self._failure and not self._is_gone:
                raise self._failure
            others = _entries(self._folder, but=self._name)
            who = f"{name_of(others)} took over from this one" if others else "this process lost its lock"
            raise StorageError(
                f"{self._folder}: {who}, since it gave no sign of life for {clock() - self._renewed:.0f} s, or its "
                "entry was deleted; when nobody runs the sweep, the same command continues it"
            )

    def release(self) -> None:
        """Free it; where the storage does not answer, others will find it silent."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(HEARTBEAT_S)
        with contextlib.suppress(StorageError):
            for name in [] if self._failure else [self._name, *self._by_kernel * ["lock"]]:
                self._folder.delete(name)

    def _keep(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            try:
                self._is_gone = self._folder.read(self._name) is None
                if self._is_gone or self._is_overdue():
                    return
                self._write()
                self._failure = None
            except StorageError as error:
                self._failure = error

    def _is_overdue(self) -> bool:
        return not self._by_kernel and clock() - self._renewed > LEASE_S - HEARTBEAT_S

    def _write(self) -> None:
        now = clock()
        self._folder.write(self._name, json.dumps({**identity(), "beat": now}).encode())
        self._renewed = now


@contextlib.contextmanager
def locked(folder: Folder) -> Iterator[Lock]:
    """Keep every other process from running the sweep of a folder; raises StorageError if one does."""
    with contextlib.ExitStack() as stack:
        lock = Lock(folder, folder.is_local and is_own_disk(folder.local_path) and _is_locked_by_kernel(folder, stack))
        stack.callback(lock.release)
        lock.acquire()
        yield lock


def running(folder: Folder) -> str | None:
    """Who runs the sweep of a folder, such as `process 4711 on gpu-box`; None: nobody seen or heard."""
    entries = _entries(folder)
    seen = {name: entry for name, entry in entries.items() if is_alive(entry)}
    with contextlib.suppress(StorageError):
        _silent(folder, {} if seen else entries, 2 * HEARTBEAT_S)
        entries = seen
    return name_of(entries) if entries else None


def _is_locked_by_kernel(folder: Folder, stack: contextlib.ExitStack) -> bool:
    try:
        folder.local_path.mkdir(parents=True, exist_ok=True)
        stack.enter_context(FileLock(folder.local_path / "lock", timeout=1))  # who was killed takes a moment to end
    except Timeout:
        raise _in_use(folder, _entries(folder), "when that process ends") from None
    except OSError:  # what is wrong with the folder, writing an entry tells
        return False
    return True


def _silent(folder: Folder, entries: dict[str, dict[str, Any]], within_s: float) -> dict[str, dict[str, Any]]:
    """The stale ones: owner dead, or unchanged for `within_s`; raises StorageError if one is renewed meanwhile."""
    end = clock() + within_s
    while clock() < end and any(is_alive(entry) is not False for entry in entries.values()):
        time.sleep(HEARTBEAT_S / 4)
        now = _entries(folder)
        entries = {name: entry for name, entry in entries.items() if name in now}
        if changed := {name: now[name] for name, entry in entries.items() if now[name] != entry}:
            raise _in_use(folder, changed, f"{LEASE_S:.0f} s after that")
    return entries


def _entries(folder: Folder, but: str = "") -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in folder.names():
        with contextlib.suppress(ResultError, ValueError, TypeError):  # no file, or a damaged one
            if name[:4] + name[-5:] == "lock.json" and name != but and (content := folder.read(name)) is not None:
                found.setdefault(name, {}).update(parse_json(content))
    return found


def _in_use(folder: Folder, entries: dict[str, dict[str, Any]], end: str) -> StorageError:
    boot = identity()["boot"]
    beats = [entry["beat"] for entry in entries.values() if boot and entry.get("boot") == boot and "beat" in entry]
    return StorageError(
        f"{folder}: {name_of(entries)} is running this sweep; wait for it, stop it, or give another --name (last sign "
        f"of life {f'{clock() - beats[0]:.0f} s ago' if beats else 'a moment ago'}; the lock frees itself {end})"
    )
