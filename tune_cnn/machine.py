"""What this machine offers a process: cores, load, GPUs and 16-bit arithmetic."""

import multiprocessing
import os
import platform
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tune_cnn import __version__

SLOWDOWN = 20  # of a precision that the CPU has no instructions for; measured: 19 to 28

# Folders of the CPU quotas, by cgroup controller: cgroup v2, and the three names of v1's controller.
_CONTROLLERS = {"": "sys/fs/cgroup", "cpu": "sys/fs/cgroup/cpu"}
_CONTROLLERS |= dict.fromkeys(("cpu,cpuacct", "cpuacct,cpu"), "sys/fs/cgroup/cpu,cpuacct")


def cores(root: Path = Path("/")) -> int:
    """Number of cores this process may use: its affinity (`taskset`, SLURM), capped by its container's CPU quota.

    `root` is the folder that holds `proc` and `sys`.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        groups = [line.split(":", 2)[1:] for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:  # not Linux
        groups = []
    quotas = [
        quota
        for controller, group in groups
        if controller in _CONTROLLERS
        # The quotas of parent groups count too. In a container, the process's own group may be the mounted root.
        for path in (Path(group.lstrip("/")), *Path(group.lstrip("/")).parents, Path())
        if ".." not in path.parts and (quota := _quota(root / _CONTROLLERS[controller] / path)) is not None
    ]
    return max(int(min([allowed, *quotas])), 1)


def _quota(group: Path) -> float | None:
    """CPU quota of a cgroup in cores, such as 1.5; None: unlimited."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((group / name).read_text() for name in names).split()
            if float(quota) > 0:  # unlimited: -1 in v1, `max` in v2
                return float(quota) / float(period)
        except (OSError, ValueError):
            continue
    return None


def load() -> str:
    """Load of a busy machine, such as `load 3.1, 2 cores`; empty if half of its cores are free."""
    count, load = os.cpu_count() or 1, os.getloadavg()[0]
    return f"load {load:.1f}, {count} cores" if load > count / 2 else ""


def end_with_parent() -> None:
    """End this process when its parent ends, even by a kill: a pool's worker would wait for more work forever."""

    def wait() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def cpu_kind() -> str:
    """CPU model and instruction set, which decide how sums are rounded, such as `AMD EPYC 7763, AVX2`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or ARM
        model = platform.processor() or platform.machine()
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}{'' if slow_here('bf16') else ' with bf16'}"


def gpu_use() -> str:
    """Use of this machine's GPUs, such as `GPU 87 %, 12 of 80 GB`; empty without NVIDIA's `nvidia-smi`."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=2, check=True).stdout
        gpus = [[float(number) for number in line.split(",")] for line in output.splitlines()]
        return "; ".join(f"GPU {busy:.0f} %, {used / 1024:.0f} of {all_ / 1024:.0f} GB" for busy, used, all_ in gpus)
    except (OSError, subprocess.SubprocessError, ValueError):  # such as a field `[N/A]`
        return ""


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Hardware, threads and versions, which decide how a training rounds, as JSON values."""
    name = device.type
    versions = {"tune_cnn": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        versions |= {"cuda": str(torch.version.cuda), "cudnn": str(cudnn)}
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        name = f"{torch.cuda.get_device_name(device)}, compute capability {capability}"
    return {"device": name, "cpu": cpu_kind(), "threads": torch.get_num_threads(), "versions": versions}


def changed_machine(there: Mapping[str, Any], here: Mapping[str, Any], place: str) -> dict[str, str]:
    """Differences between two `machine_facts`, a phrase per key, which may explain why numbers differ."""
    return {
        key: f"{key}: {there[key]} {place}, {value} here"
        for key, value in here.items()
        if key in there and there[key] != value
    }


def slow_here(precision: str) -> bool:
    """Whether the CPU has no instructions for a precision, so that a training takes some 20 times as long."""
    name = f"_is_mkldnn_{precision}_supported"
    return precision in ("bf16", "fp16") and not (hasattr(torch.ops.mkldnn, name) and getattr(torch.ops.mkldnn, name)())


def slow_remark(precision: str) -> str:
    """Warning that a training will be slow for that reason."""
    return (
        f"precision {precision}: this CPU has no instructions for it, so a training takes some {SLOWDOWN} times "
        "as long; precision=fp32 is fast here (other numbers, so another trial id)"
    )
