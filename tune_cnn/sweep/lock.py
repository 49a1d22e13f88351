"""The lock of a sweep: only one process at a time may run it.

On a local disk, it is a file lock, which the kernel releases when the process ends.
On shared storage, it is a lease. Each process writes a lock file of its own, then lists those of others. If there is
one, it deletes its own and tries again later, so two processes can never both hold the lock. The owner renews its file
regularly. As clocks differ, a file counts as live if it changes while another process watches it. An owner that cannot
renew its file stops before others may consider it dead.
"""

import json
import math
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

from filelock import FileLock, Timeout

from tune_cnn.errors import ResultError, StorageError
from tune_cnn.files import parse_json
from tune_cnn.sweep.folder import Folder
from tune_cnn.texts import tell

LEASE_S = float(os.environ.get("TUNE_CNN_LEASE_S", "90"))  # a file unchanged so long is stale; NFS clients may lag 60 s
HEARTBEAT_S = LEASE_S / 9
_LOCAL = "lock.json"  # the owner's file on a local disk; the owner also holds a file lock on `lock`
# Keeps running while the machine is suspended, if the system has such a clock.
clock = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lock:
    """The lock of a sweep, renewed by a background thread; `check` raises an error if it was lost."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self._most_s = math.inf if name == _LOCAL else LEASE_S - HEARTBEAT_S
        self._failure: StorageError | None = None
        self._ended, self._thread = Event(), Thread(target=self._keep, daemon=True)

    def __enter__(self) -> "Lock":
        self._renew()
        while others := _owners(self._folder, but=self._name):
            self._folder.delete(self._name)
            wait = f"waiting for a sign of life from {_name(others)}; without one, its lease ends in {LEASE_S:.0f} s"
            tell(f"{self._folder}: {wait}", file=sys.stderr)
            for dead in _silent(self._folder, others, LEASE_S):
                self._folder.delete(dead)
            time.sleep(random.uniform(0, min(clock() - self._renewed, HEARTBEAT_S)))  # others retry at different times
            self._renew()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(HEARTBEAT_S)
        with suppress(StorageError):
            if not self._failure:  # otherwise, others will find it stale
                self._folder.delete(self._name)
                if self._name == _LOCAL:
                    self._folder.delete("lock")

    def check(self) -> None:
        """Raise a StorageError if the lock is lost, or may be, since the storage has failed for so long."""
        silent_s = clock() - self._renewed
        if not self._thread.is_alive() or silent_s > self._most_s:
            others = {} if self._failure else _owners(self._folder, but=self._name)
            lost = f"{_name(others)} took over from this one" if others else "this process lost its lock"
            raise self._failure or StorageError(
                f"{self._folder}: {lost}, since it gave no sign of life for {silent_s:.0f} s, or its entry was deleted;"
                " when nobody runs the sweep, the same command continues it"
            )

    def _keep(self) -> None:
        while not self._ended.wait(HEARTBEAT_S) and clock() - self._renewed <= self._most_s:
            try:
                if self._folder.read(self._name) is None:
                    return
                self._renew()
                self._failure = None
            except StorageError as error:
                self._failure = error

    def _renew(self) -> None:
        now = clock()
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "renewed": now}
        self._folder.write(self._name, json.dumps(owner).encode())
        self._renewed = now


@contextmanager
def locked(folder: Folder) -> Iterator[Lock]:
    """Hold the lock of the sweep in a folder; raise a StorageError if another process runs it."""
    name = f"lock-{os.urandom(4).hex()}.json"
    with ExitStack() as stack:
        if folder.is_own_disk:
            name = _LOCAL
            try:
                stack.enter_context(FileLock(folder.local_path / "lock", timeout=1))  # a killed owner ends a bit later
            except Timeout:
                owners = _owners(folder)
                age_s = clock() - max((owner.get("renewed", 0) for owner in owners.values()), default=clock())
                raise _in_use(folder, owners, age_s, "when that process ends") from None
            except OSError as error:
                raise folder.failed(error, "locked", "lock") from error
        yield stack.enter_context(Lock(folder, name))


def running(folder: Folder) -> str | None:
    """Who runs the sweep in a folder, such as `process 4711 on gpu-box`; None: nobody gives a sign of life."""
    owners = _owners(folder)
    try:
        if _LOCAL in owners and folder.is_local and os.access(folder.local_path / "lock", os.W_OK):
            with FileLock(folder.local_path / "lock", timeout=0):
                return None
        _silent(folder, owners, 2 * HEARTBEAT_S)
    except (Timeout, StorageError):
        return _name(owners)
    return None


def _silent(folder: Folder, owners: dict[str, Any], within_s: float) -> dict[str, Any]:
    """Wait `within_s`; return the owners that gave no sign of life; raise a StorageError as soon as one does."""
    end = clock() + within_s
    while owners and clock() < end:
        time.sleep(HEARTBEAT_S / 4)
        now = _owners(folder)
        owners = {name: owner for name, owner in owners.items() if name in now}
        if changed := {name: now[name] for name, owner in owners.items() if now[name] != owner}:
            raise _in_use(folder, changed, 0, f"{LEASE_S:.0f} s after that")
    return owners


def _owners(folder: Folder, but: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in folder.names():
        with suppress(ResultError, ValueError, TypeError):  # not a file, or a damaged one
            if Path(name).match("lock*.json") and name != but and (content := folder.read(name)) is not None:
                found.setdefault(name, {}).update(parse_json(content))
    return found


def _name(owners: dict[str, Any]) -> str:
    owner: dict[str, Any] = next(iter(owners.values()), {})
    return f"process {owner['pid']} on {owner.get('host')}" if "pid" in owner else "another process"


def _in_use(folder: Folder, owners: dict[str, Any], age_s: float, end: str) -> StorageError:
    return StorageError(
        f"{folder}: {_name(owners)} is running this sweep; wait for it, stop it, or give another name (last sign of "
        f"life {age_s:.0f} s ago; the lock frees itself {end})"
    )
