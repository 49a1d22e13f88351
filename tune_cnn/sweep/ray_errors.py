"""One-line reasons why Ray does not start, or why one of its processes died."""

import os
import re
from pathlib import Path

_OPEN_FILES = 1024  # a limit at which Ray is sure to start


def why_no_start(error: Exception, gpus: int | None, data_bytes: int) -> str:
    """Why `ray.init` raised an error and, if known, the remedy: an environment variable or a limit to change.

    `gpus` is the number requested, and `data_bytes` the size of the images to be shared.
    """
    reason = " ".join(str(error).split())
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "")
    folder = os.environ.get(variable, "/tmp")
    where = f"{variable}={folder}" if variable else folder
    if "CUDA_VISIBLE_DEVICES" in reason:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return f"gpus {gpus}: CUDA_VISIBLE_DEVICES={visible} allows fewer; unset it, or leave gpus out"
    if "AF_UNIX path" in reason:
        return f"{where}: too long a path for the sockets of Ray; set a shorter one, such as RAY_TMPDIR=/tmp"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{where}: cannot be used by Ray ({error.strerror}); set RAY_TMPDIR to a folder that can be written"
    if "object_store_memory" in reason:
        return f"the images take {data_bytes / 1e9:.1f} GB, more than this machine can share; use fewer or smaller ones"
    import resource  # missing on Windows

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= files < _OPEN_FILES:
        return f"Ray does not start, for only {files} files may be open at once; type: ulimit -n {_OPEN_FILES}"
    return f"Ray does not start ({reason}); see what its processes say in {folder}/ray/session_latest/logs"


def logs_folder() -> Path:
    """The folder with the logs of this Ray's processes."""
    from ray._private.worker import _global_node

    return Path(_global_node.get_logs_dir_path())


def lost_daemon() -> str | None:
    """Name of a daemon of our own Ray that has died, after which Ray soon ends this process; None: all are alive."""
    from ray._private.worker import _global_node

    ended = [kind for kind, _ in _global_node.dead_processes()] if _global_node is not None else []
    return next((kind for kind in ended if kind in ("raylet", "gcs_server")), None)


def words_of_dead_workers(logs: Path) -> str | None:
    """Why all worker processes died before they were ready; None: one is alive, or none was started."""
    try:
        log = (logs / "raylet.out").read_text(errors="replace")
    except OSError:  # RAY_LOG_TO_STDERR=1
        return None
    started = re.findall(r"Started worker process with pid (\d+)", log)
    if not started or any(map(_is_there, map(int, started))):
        return None
    # Until a worker has its own log, its output goes to that of the daemon that started it.
    said = [path.read_text(errors="replace") for path in (logs / "raylet.err", *logs.glob("worker-*.err"))]
    return _last_line("\n".join(said)) or "killed, perhaps out of memory"


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:  # gone; or its number is now that of another user's process
        return False
    return True


def last_words(error: str, logs: Path) -> str:
    """Why the process of a trial died: the last line that it logged, if any; `error` is Tune's record of failures."""
    last = re.sub(r"\x1b\[\d+m", "", re.split(r"^Failure # .*$", error, flags=re.MULTILINE)[-1])
    if "node has died" in last:
        return "its machine was lost"
    if process := re.search(r"^\s*pid: (\d+)$", last, re.MULTILINE):
        said = "".join(path.read_text(errors="replace") for path in logs.glob(f"worker-*-{process[1]}.err"))
        return _last_line(said) or "killed, perhaps out of memory"
    return _last_line(last) or "it left no reason"


def _last_line(said: str) -> str:
    # Skips stack traces, whose lines are indented or begin with a [date], and Ray's own `:actor_name:...`.
    return next((line.strip() for line in reversed(said.splitlines()) if re.match(r"[^\s\[:]", line)), "")
