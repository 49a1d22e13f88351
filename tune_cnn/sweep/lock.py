"""One process at a time runs a sweep."""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tune_cnn.errors import ResultError, StorageError
from tune_cnn.files import parse_json
from tune_cnn.sweep.folder import Folder

_NAME = "lock.json"
_BEAT_S = 20.0
_STALE_S = 180.0  # without a beat; far more than clocks differ, and than a slow disk delays one
_SETTLE_S = 0.5  # longer than anyone takes from looking at a lock to replacing it


@contextmanager
def locked(folder: Folder) -> Iterator[None]:
    """Keep every other process from running the sweep of a folder.

    The lock is a file that names process and host and is renewed while it is held. It is stale, and taken over, when
    that process is gone from this host, or when another host has not renewed it for minutes.

    Raises:
        StorageError: Another process holds it.
    """
    token = secrets.token_hex(8)

    def is_mine() -> bool:
        return (_holder(folder) or {}).get("token") == token

    with _one_at_a_time(folder):
        holder = _holder(folder)
        if holder == {}:  # damaged, or being written at this moment
            time.sleep(_SETTLE_S)
            holder = _holder(folder)
        if holder is not None and not _is_stale(holder):
            raise _in_use(folder, holder)
        if holder is not None:
            folder.delete(_NAME)
        folder.create(_NAME, _content(token))
    if holder is not None or not folder.is_local:
        time.sleep(_SETTLE_S)  # another may have found the same stale lock, and may just be replacing ours
    # Whoever else wanted the lock at the same moment has lost now, or has won.
    if not is_mine():
        raise _in_use(folder, _holder(folder) or {})

    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_S):
            with contextlib.suppress(OSError):
                if not is_mine():  # this process slept for so long that another one took over
                    return
                folder.write(_NAME, _content(token))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            if is_mine():
                folder.delete(_NAME)


@contextmanager
def _one_at_a_time(folder: Folder) -> Iterator[None]:
    """Let one process of this host after the other look at a lock and replace it, however slow the disk is."""
    if not folder.is_local or os.name != "posix":
        yield
        return
    import fcntl

    folder.local_path.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder.local_path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def running(folder: Folder) -> str | None:
    """Who is running the sweep of a folder, such as `process 4711 on gpu-box`; None: nobody."""
    holder = _holder(folder)
    return None if holder is None or _is_stale(holder) else _name(holder)


def _content(token: str) -> bytes:
    pid = os.getpid()
    values = {"host": socket.gethostname(), "pid": pid, "started": _start_of(pid), "token": token, "beat": time.time()}
    return json.dumps(values).encode()


def _holder(folder: Folder) -> dict[str, Any] | None:
    try:
        content = folder.read(_NAME)
        if content is None:
            return None
        values = parse_json(content)
        return values if isinstance(values, dict) else {}
    except (ValueError, ResultError):
        return {}


def _is_stale(holder: dict[str, Any]) -> bool:
    pid, beat = holder.get("pid"), holder.get("beat")
    if not isinstance(pid, int) or not isinstance(beat, int | float):
        return True
    if holder.get("host") == socket.gethostname():
        return _start_of(pid) is None or _start_of(pid) != holder.get("started")
    return time.time() - beat > _STALE_S


def _start_of(pid: int) -> str | None:
    """When a process of this host started, so that a number used again is not taken for it; None if it is gone."""
    try:
        # Field 22 of proc_pid_stat(5); the second one may itself hold blanks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "running"


def _in_use(folder: Folder, holder: dict[str, Any]) -> StorageError:
    return StorageError(
        f"{folder}: {_name(holder)} is running this sweep; wait for it, stop it, or give another --name "
        f"(if it is surely gone, delete {_NAME} in that folder)"
    )


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}" if holder else "another process"
