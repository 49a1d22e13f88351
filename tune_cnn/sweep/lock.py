"""The lock of a sweep: only one process at a time may run it.

On a local disk it is a file lock, which the kernel releases when the process ends.

On shared storage it is a lease. Each process writes a lock file of its own, then lists those of the others. Who sees
another deletes its own and tries again later, so two processes cannot both hold the lock. The owner renews its file
regularly. As clocks differ, a file counts as live if it changes while one watches it. An owner that cannot renew its
file stops before others may take it for dead. On its own machine, it also keeps a file locked: whether that lock is
free tells other processes there at once whether it lives.
"""

import json
import math
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

from filelock import FileLock, Timeout

from tune_cnn.errors import ResultError, StorageError
from tune_cnn.files import parse_json
from tune_cnn.sweep.folder import Folder
from tune_cnn.texts import tell

LEASE_S = float(os.environ.get("TUNE_CNN_LEASE_S", "90"))  # stale if unchanged for so long; NFS clients may lag by 60 s
HEARTBEAT_S = LEASE_S / 9
# File systems, as stat(1) calls them, that no other machine writes to unless told to export them.
_OWN_DISKS = {"ext2/ext3", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs", "ramfs", "overlayfs"}
_LOCAL = "lock.json"  # of the one owner on a disk of this machine
# Goes on while the machine is suspended, where the system has such a clock.
clock = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lock:
    """The lock of a sweep, renewed by a background thread; `check` raises an error if it was lost."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self._most_s = math.inf if name == _LOCAL else LEASE_S - HEARTBEAT_S
        self._failure: StorageError | None = None
        self._ended, self._thread = Event(), Thread(target=self._keep, daemon=True)

    def acquire(self) -> None:
        """Acquire it, once the leases of dead owners have expired; raises StorageError if a live process holds it."""
        self._renew()
        while others := _owners(self._folder, but=self._name):
            self._folder.delete(self._name)
            tell(f"{self._folder}: waiting for a sign of life of {_name(others)}", file=sys.stderr)
            for dead in _silent(self._folder, others, LEASE_S):
                self._folder.delete(dead)
            time.sleep(random.uniform(0, min(clock() - self._renewed, HEARTBEAT_S)))  # the others come at other moments
            self._renew()
        self._thread.start()

    def check(self) -> None:
        """Raises StorageError: the lock is lost, or the storage has failed for so long that it may be."""
        silent_s = clock() - self._renewed
        if self._thread.is_alive() and silent_s <= self._most_s:
            return
        others = {} if self._failure else _owners(self._folder, but=self._name)
        raise self._failure or StorageError(
            f"{self._folder}: {f'{_name(others)} took over from this one' if others else 'this process lost its lock'}"
            f", since it gave no sign of life for {silent_s:.0f} s, or its entry was deleted; when nobody runs the "
            "sweep, the same command continues it"
        )

    def release(self) -> None:
        """Free it; where the storage does not answer, others will find it silent."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(HEARTBEAT_S)
        with suppress(StorageError):
            if not self._failure:
                self._folder.delete(self._name)
                _kept_locked(self._folder, self._name).unlink(missing_ok=True)

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
    """Keep every other process from running the sweep of a folder; raises StorageError if one does."""
    name = _LOCAL if folder.is_local and is_own_disk(folder.local_path) else f"lock-{os.urandom(4).hex()}.json"
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(_kept_locked(folder, name), timeout=1))  # what is killed takes a moment
        except Timeout:
            owners = _owners(folder)
            age_s = clock() - max(owner.get("renewed", 0) for owner in owners.values()) if owners else 0
            raise _in_use(folder, owners, age_s, "when that process ends") from None
        except OSError:  # what is wrong with the folder, writing to it tells
            pass
        lock = Lock(folder, name)
        stack.callback(lock.release)
        lock.acquire()
        yield lock


def running(folder: Folder) -> str | None:
    """Who runs the sweep of a folder, such as `process 4711 on gpu-box`; None: nobody seen or heard."""
    owners = {name: owner for name, owner in _owners(folder).items() if _is_alive(folder, name) is not False}
    with suppress(StorageError):
        if not any(_is_alive(folder, name) for name in owners):
            _silent(folder, owners, 2 * HEARTBEAT_S)
            return None
    return _name(owners)


def is_own_disk(path: Path) -> bool:
    """Whether a folder, which is made if need be, is on a file system that only this machine sees."""
    with suppress(OSError, subprocess.CalledProcessError):
        path.mkdir(parents=True, exist_ok=True)
        find = ["stat", "-f", "-c", "%T", str(path)]
        return sys.platform != "linux" or subprocess.check_output(find, text=True).strip() in _OWN_DISKS
    return False


def _kept_locked(folder: Folder, name: str) -> Path:
    """The file on its own machine that the owner of a lock file keeps locked."""
    is_there = name == _LOCAL and folder.is_local
    return folder.local_path / "lock" if is_there else Path(tempfile.gettempdir()) / f"tune_cnn-{name}"


def _is_alive(folder: Folder, name: str) -> bool | None:
    """Whether the owner of a lock file lives; None: it cannot be seen from here, such as one in another container."""
    try:
        if (path := _kept_locked(folder, name)).exists():
            with FileLock(path, timeout=0):
                return False
    except Timeout:
        return True
    except OSError:  # another user's
        pass
    return None


def _silent(folder: Folder, owners: dict[str, Any], within_s: float) -> dict[str, Any]:
    """Those who are dead, or gave no sign of life for `within_s`; raises StorageError if one does meanwhile."""
    end = clock() + within_s
    while clock() < end and any(_is_alive(folder, name) is not False for name in owners):
        time.sleep(HEARTBEAT_S / 4)
        now = _owners(folder)
        owners = {name: owner for name, owner in owners.items() if name in now}
        if changed := {name: now[name] for name, owner in owners.items() if now[name] != owner}:
            raise _in_use(folder, changed, 0, f"{LEASE_S:.0f} s after that")
    return owners


def _owners(folder: Folder, but: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in folder.names():
        with suppress(ResultError, ValueError, TypeError):  # no file, or a damaged one
            if fnmatch(name, "lock*.json") and name != but and (content := folder.read(name)) is not None:
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
