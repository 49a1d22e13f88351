"""What a process may use of its machine, and what is said while it waits."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tune_cnn.machine import cores, cpu_kind, gpu_use, slow_here
from tune_cnn.waiting import waiting

V1, V2 = "4:cpu,cpuacct:{}\n3:cpuset:/\n0::/elsewhere\n", "0::{}\n"


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (None, {}, 8),  # no Linux
        (V2.format("/"), {}, 8),
        (V2.format("/"), {"cpu.max": "max 100000"}, 8),
        (V2.format("/"), {"cpu.max": "400000 100000"}, 4),
        (V2.format("/"), {"cpu.max": "150000 100000"}, 1),
        (V2.format("/"), {"cpu.max": "50000 100000"}, 1),
        (V2.format("/"), {"cpu.max": "1600000 100000"}, 8),
        (V2.format("/"), {"cpu.max": "damaged"}, 8),
        (V2.format("/slurm/job_1/step_0"), {"slurm/job_1/cpu.max": "300000 100000"}, 3),  # of a group above
        (V2.format("/a/b"), {"a/b/cpu.max": "max 100000", "a/cpu.max": "500000 100000", "cpu.max": "600000 100000"}, 5),
        (V2.format("/docker/0123"), {"cpu.max": "200000 100000"}, 2),  # which is the root that the container sees
        (V2.format("/../../pod"), {"cpu.max": "200000 100000"}, 2),
        (V1.format("/"), {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 8),
        (V1.format("/"), {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2),
        (V1.format("/a/b"), {"cpu,cpuacct/a/cpu.cfs_quota_us": "60000", "cpu,cpuacct/a/cpu.cfs_period_us": "20000"}, 3),
        (
            "4:cpuacct,cpu:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            2,
        ),
        ("1:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "400000", "cpu/x/cpu.cfs_period_us": "100000"}, 4),
    ],
)
def test_cores_are_those_of_the_affinity_within_the_quota_of_the_container(
    eight_cores, tmp_path, groups, files, expected
):
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    assert cores(tmp_path) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinities here")
def test_a_core_that_taskset_took_away_is_not_counted():
    one = min(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, [{one}]); from tune_cnn.machine import cores; print(cores())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_every_count_of_cores_is_this_one():
    package = Path(__file__).parent.parent / "tune_cnn"
    counting = [path.stem for path in package.rglob("*.py") if "cpu_count()" in path.read_text()]
    assert counting == ["machine"]


def test_precisions_that_these_cores_are_slow_at_are_known(monkeypatch):
    assert not slow_here("fp32")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False)
    assert [slow_here(precision) for precision in ("bf16", "fp16", "tf32")] == [False, True, False]
    assert cpu_kind().endswith(" with bf16")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert slow_here("bf16")
    assert not cpu_kind().endswith("bf16")


def test_who_waits_is_told_so_and_what_is_done_soon_is_silent(monkeypatch, capsys):
    monkeypatch.setattr("tune_cnn.waiting.REMIND_S", 0.2)
    with waiting("a short while"):
        pass
    assert capsys.readouterr().err == ""
    with waiting("loading images"):
        time.sleep(1)
    first, second, *others = capsys.readouterr().err.splitlines()
    assert first == second == "loading images (0 s)"
    assert len(others) <= 1, "not ever less often"
    time.sleep(0.3)
    assert capsys.readouterr().err == ""
    with waiting("starting Ray", at_once=True):
        assert capsys.readouterr().err == "starting Ray\n"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("87, 12288, 81920\n3, 400, 81920", "GPU 87 %, 12 of 80 GB; GPU 3 %, 0 of 80 GB"),
        ("[N/A], [N/A], [N/A]", ""),
        (None, ""),
    ],
)
def test_how_busy_gpus_are_is_what_nvidias_tool_says(tmp_path, monkeypatch, said, shown):
    if said is not None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\necho '{said}'\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) if said is None else f"{tmp_path}:/bin:/usr/bin")
    assert gpu_use() == shown
