"""Which process is which: its name across machines, whether it is there, and what it shares with others."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# File systems that no other machine writes to, unless it is told to export them.
_OWN_DISKS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "tmpfs", "ramfs", "overlay"}


def clock() -> float:
    """Seconds since the machine was started, those included in which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def identity() -> dict[str, Any]:
    """This process as host name, pid, start time, and the boot id and pid namespace in which the pid is valid."""
    try:
        boot: str | None = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace: str | None = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        boot = namespace = None
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace, "pid": pid, "started": _start(pid)}


def is_alive(process: dict[str, Any]) -> bool | None:
    """Whether the process of an `identity` is there; None: it cannot be seen from here."""
    here, pid = identity(), process.get("pid")
    if here["boot"] is None or any(process.get(key) != here[key] for key in ("boot", "namespace")):
        return None
    try:
        os.kill(pid, 0)  # type: ignore[arg-type]
    except ProcessLookupError:
        return False
    except (PermissionError, TypeError, OverflowError):
        pass
    started = _start(pid)
    return None if started is None else started == process.get("started")


def name_of(processes: Mapping[str, Mapping[str, Any]]) -> str:
    """The first of them for people, such as `process 4711 on gpu-box`."""
    process = next(iter(processes.values()), {})
    return f"process {process['pid']} on {process.get('host')}" if "pid" in process else "another process"


def _start(pid: object) -> str | None:
    """When a process started, so that a number used again is not taken for it; None: it cannot be seen."""
    try:
        # Field 22 of proc_pid_stat(5); the second one may itself hold blanks. A zombie holds nothing.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "gone" if fields[0] == "Z" else fields[19]


def is_own_disk(path: Path) -> bool:
    """Whether a path, which may not exist yet, is on a file system that only this machine sees."""
    try:
        mounts = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError:  # no Linux: the kernel's locks are the best there is
        return True
    place = f"{path.resolve()}/"
    # The innermost one counts, and of several in one place the last.
    above = [
        (len(point), index, fields[fields.index("-") + 1])
        for index, fields in enumerate(mounts)
        if place.startswith(point := fields[4].replace("\\040", " ").rstrip("/") + "/")
    ]
    return max(above, default=(0, 0, ""))[2] in _OWN_DISKS  # none in a chroot: not known
