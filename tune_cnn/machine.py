"""What this machine gives to a process: cores, and arithmetic of 16 bits."""

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tune_cnn import __version__

SLOWDOWN = 20  # about that of a precision for which the CPU has no instructions; 19 to 28 were measured

# Where a control group says how much time of the CPU it may use: cgroup v2, and the two names of v1's controller.
_CONTROLLERS = {"": "sys/fs/cgroup", "cpu": "sys/fs/cgroup/cpu", "cpu,cpuacct": "sys/fs/cgroup/cpu,cpuacct"}


def cores(root: Path = Path("/")) -> int:
    """How many cores this process may use: those of its affinity (`taskset`, SLURM), within its container's CPU quota.

    `root` holds `/proc` and `/sys`.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        groups = [line.split(":", 2)[1:] for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:  # no Linux
        groups = []
    quotas = [
        quota
        for controller, group in groups
        if controller in _CONTROLLERS
        # A quota of a group above counts too. Within a container, its own group may be the root that is mounted.
        for path in (Path(group.lstrip("/")), *Path(group.lstrip("/")).parents, Path())
        if ".." not in path.parts and (quota := _quota(root / _CONTROLLERS[controller] / path)) is not None
    ]
    return max(int(min([allowed, *quotas])), 1)


def _quota(group: Path) -> float | None:
    """The cores that a control group may use, such as 1.5; None: all."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((group / name).read_text() for name in names).split()
            if float(quota) > 0:  # -1 is no limit in v1, `max` is none in v2
                return float(quota) / float(period)
        except (OSError, ValueError):
            continue
    return None


def load() -> str:
    """How busy this machine is, such as `load 3.1, 2 cores`; nothing where half of its cores are free."""
    count, load = os.cpu_count() or 1, os.getloadavg()[0]
    return f"load {load:.1f}, {count} cores" if load > count / 2 else ""


def cpu_kind() -> str:
    """What decides how sums are rounded here: model and instruction set, such as `AMD EPYC 7763, AVX2`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # no Linux, or ARM
        model = platform.processor() or platform.machine()
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}{'' if slow_here('bf16') else ' with bf16'}"


def gpu_use() -> str:
    """How busy the GPUs of this machine are, such as `GPU 87 %, 12 of 80 GB`; empty without NVIDIA's `nvidia-smi`."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=2, check=True).stdout
        gpus = [[float(number) for number in line.split(",")] for line in told.splitlines()]
        return "; ".join(f"GPU {busy:.0f} %, {used / 1024:.0f} of {all_ / 1024:.0f} GB" for busy, used, all_ in gpus)
    except (OSError, subprocess.SubprocessError, ValueError):  # `[N/A]` for one
        return ""


def machine_facts(device: torch.device) -> dict[str, Any]:
    """What the rounding of a training depends on, as JSON values."""
    name = device.type
    versions = {"tune_cnn": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        versions |= {"cuda": str(torch.version.cuda), "cudnn": str(cudnn)}
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        name = f"{torch.cuda.get_device_name(device)}, compute capability {capability}"
    return {"device": name, "cpu": cpu_kind(), "threads": torch.get_num_threads(), "versions": versions}


def changed_machine(there: Mapping[str, Any], here: Mapping[str, Any], place: str) -> dict[str, str]:
    """What differs between two `machine_facts`, in words by key, for whoever wonders why numbers differ."""
    return {
        key: f"{key}: {there[key]} {place}, {value} here"
        for key, value in here.items()
        if key in there and there[key] != value
    }


def slow_here(precision: str) -> bool:
    """Whether the CPU lacks the instructions for a precision, so that a training takes some 20 times as long."""
    name = f"_is_mkldnn_{precision}_supported"
    return precision in ("bf16", "fp16") and not (hasattr(torch.ops.mkldnn, name) and getattr(torch.ops.mkldnn, name)())


def slow_remark(precision: str) -> str:
    """What to say where a training would be slow for that reason."""
    return (
        f"precision {precision}: this CPU has no instructions for it, so a training takes some {SLOWDOWN} times "
        "as long; precision=fp32 is fast here (other numbers, so another trial id)"
    )
