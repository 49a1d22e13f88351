"""Figures of speed: that they measure what they say. How high they are is not tested, as machines are busy."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tune_cnn.bench import (
    CONTENDERS,
    _own_memory_mb,
    by_hand,
    convolutions,
    convolve,
    first_images,
    measure_cell,
    ours,
    take_turn,
)
from tune_cnn.cli import main
from tune_cnn.cli.commands.bench import _CELLS, cells_table
from tune_cnn.data import Images
from tune_cnn.models import resolve
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.config.load import load_experiments

TINY = Settings(
    seed=3, bs_train=20, filters_per_layer=(4,), layers_per_block=2, hidden_dims=(10,),
    data=DataSettings("shapes", in_size=(3, 8, 8), train_images=400, test_images=10),
)  # fmt: skip
CPU = torch.device("cpu")
CONFIG = """\
run_name: tiny_L{L}
grid:
  layers_per_block: [1, 2]
settings: {bs_train: 20, filters_per_layer: [4], hidden_dims: [10]}
data: {source: shapes, in_size: [3, 8, 8], train_images: 120, test_images: 10}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tune_cnn.machine.load", lambda: "")
    Path("tiny.yaml").write_text(CONFIG)
    return Path("tiny.yaml")


# What is timed


def test_ours_and_the_loop_written_by_hand_train_the_same_numbers():
    images = first_images(TINY, batches=3)
    losses = {}
    for contender in (ours, by_hand):  # one after the other, as they draw from the same random state
        passes = contender(replace(TINY, batches=2), images, CPU)  # all images count, whatever a trial takes
        losses[contender] = [passes.training() if turn % 2 == 0 else passes.validation() for turn in range(6)]
    assert [len(values) for values in losses[ours]] == [3, math.ceil(60 / 5)] * 3
    for values, expected in zip(losses[ours], losses[by_hand], strict=True):
        assert values == pytest.approx(expected, rel=2e-3)
    assert losses[ours][0][0] == pytest.approx(losses[by_hand][0][0], rel=1e-6)


def test_memory_is_unknown_where_the_kernel_does_not_tell_it(tmp_path, monkeypatch):
    assert _own_memory_mb() > 0 or sys.platform != "linux"
    monkeypatch.setattr("tune_cnn.bench.Path", lambda path: tmp_path / "absent")
    assert math.isnan(_own_memory_mb())


def test_the_loop_written_by_hand_trains_a_custom_network_whatever_its_name(tmp_path, monkeypatch):
    net = "from torch import nn\nclass ConvClassifier(nn.Sequential):\n    def __init__(self, in_size, out_classes):\n"
    (tmp_path / "nets.py").write_text(f"{net}        super().__init__(nn.Flatten(), nn.Linear(192, out_classes))\n")
    monkeypatch.setattr("tune_cnn.bench.conv_classifier", pytest.fail)
    settings = resolve(replace(TINY, model=f"{tmp_path}/nets.py:ConvClassifier"))
    assert len(by_hand(settings, first_images(settings, batches=1), CPU).training()) == 1


def test_a_turn_has_the_images_of_its_batches_and_no_more():
    assert [part.count for part in first_images(TINY, batches=2)[:3]] == [40, 40, 10]
    assert [part.count for part in first_images(TINY, batches=99)[:3]] == [340, 60, 10]


@pytest.mark.parametrize(("precision", "ycn"), [("fp32", False), ("bf16", False), ("fp32", True)])
def test_the_limit_is_the_convolutions_of_the_network(precision, ycn, monkeypatch):
    ran = []

    def recorded(conv, images, times, is_training):
        ran.append((tuple(images.shape), times, is_training, images.requires_grad, images.dtype))
        convolve(conv, images, times, is_training)

    monkeypatch.setattr("tune_cnn.bench.convolve", recorded)
    settings = replace(TINY, precision=precision, ycn=ycn, pool_every=1)
    passes = convolutions(settings, first_images(settings, batches=2), CPU)
    passes.training()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    assert ran == [((20, 3, 8, 8), 2, True, False, dtype), ((20, 4, 4, 4), 2, True, True, dtype)]
    passes.validation()
    assert [run[1:4] for run in ran[2:]] == [(1, False, False)] * 2


# Taking turns


def test_the_contenders_take_turns(monkeypatch):
    log: list[str] = []

    def turn(
        contender: str, settings: Settings, images: Images, threads: int, device: torch.device
    ) -> dict[str, float]:
        log.append(contender)
        rate = {"ours": 300.0, "by_hand": 100.0 * len(log), "convolutions": 400.0}[contender]
        return {"training": rate, "validation": 10 * rate, "memory_mb": 100.0 + len(log)}

    monkeypatch.setattr("tune_cnn.bench.take_turn", turn)
    monkeypatch.setattr("tune_cnn.bench.tell", lambda text, file: log.append(text))
    cell = measure_cell("tiny", TINY, batches=1, rounds=2, threads=1, device=CPU)
    each = ["ours", "by_hand", "convolutions"]
    assert log == ["tiny: round 1 of 2", *each, "tiny: round 2 of 2", *each]
    assert json.loads(json.dumps(cell, allow_nan=False)) == cell
    assert cell["training"]["images_per_s"]["by_hand"] == {"median": 500.0, "lowest": 300.0, "highest": 700.0}
    assert cell["training"]["ours_over_by_hand"] == {"median": 0.714, "lowest": 0.429, "highest": 1.0}
    assert cell["validation"]["ours_over_convolutions"] == {"median": 0.75, "lowest": 0.75, "highest": 0.75}
    assert cell["memory_mb"] == 106.0


@pytest.mark.slow
def test_nothing_is_said_but_how_far_it_is(tmp_path):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "tune_cnn", "bench", "tiny.yaml", "--only", "*L1", "--rounds=1", "--batches=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (
        re.sub(r"(loading PyTorch|other work keeps).*\n", "", done.stderr) == "cells: tiny_L1\ntiny_L1: round 1 of 1\n"
    )


@pytest.mark.parametrize("is_killed", [False, True])
def test_ctrl_c_or_a_kill_ends_it_and_its_processes_while_one_starts(tmp_path, is_killed):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "tune_cnn", "bench", "tiny.yaml", "--rounds=99", "--set", "data.train_images=3000"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while "round 1 of 99" not in process.stderr.readline():
            pass
        time.sleep(0.5)
        if is_killed:
            process.kill()
            process.communicate(timeout=60)  # until all processes that write to its stderr have ended
        else:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            assert process.communicate(timeout=60)[1] == "\ninterrupted\n"
    assert process.returncode == (-signal.SIGKILL if is_killed else 130)


def test_an_error_of_a_process_is_told():
    unfit = replace(TINY, layers_per_block=9, pool_every=1)
    with pytest.raises(ValueError, match="below 1x1"):
        take_turn("ours", unfit, first_images(unfit, 1), threads=1, device=CPU)


# What is shown


def cell(**changes: Any) -> dict[str, Any]:
    def spread(median: float, lowest: float, highest: float) -> dict[str, float]:
        return {"median": median, "lowest": lowest, "highest": highest}

    def phase(*rates: float) -> dict[str, Any]:
        return {
            "images_per_s": {name: spread(rate, rate, rate) for name, rate in zip(CONTENDERS, rates, strict=True)},
            "ours_over_by_hand": spread(3.0, 2.0, 3.3),
            "ours_over_convolutions": spread(0.75, 0.7, 0.8),
        }

    values = {"name": "K4_L2", "precision": "fp32", "memory_mb": 123.4}
    return {**values, "training": phase(300, 100, 400), "validation": phase(3000, 1000, 4000), **changes}


def test_the_table_has_medians_and_the_spread_of_the_ratios():
    assert cells_table([cell()]).split("\n") == [
        "cell   precision  train img/s  by hand  convs alone            x by hand  of convs  "
        "val img/s  by hand            x by hand  of convs   MB",
        "K4_L2  fp32               300      100          400  3.00 (2.00 to 3.30)       75%      "
        "3,000    1,000  3.00 (2.00 to 3.30)       75%  123",
    ]
    assert cells_table([cell(memory_mb=None)]).endswith("  -")


# The command


def test_the_command_measures_each_distinct_cell(config, capsys):
    arguments = ["bench", str(config), "--only", "*_L2", "--set", "seed=1", "--threads", "1", "--batches", "2"]
    assert main([*arguments, "--rounds", "1", "--out", "new/bench.json"]) == 0
    out, err = capsys.readouterr()
    header, row, *explained, last = out.splitlines()
    assert header.startswith("cell  ")
    assert row.startswith("tiny_L2  fp32  ")
    assert "of convs: our share of the speed of the conv layers alone" in " ".join(explained)
    assert last == "figures: new/bench.json"
    assert err.splitlines() == ["cells: tiny_L2", "tiny_L2: round 1 of 1"]
    figures = json.loads(Path("new/bench.json").read_text())
    assert figures.keys() == {"machine", "batches", "rounds", "cells"}
    (measured,) = figures["cells"]
    for phase in ("training", "validation"):
        assert measured[phase]["images_per_s"].keys() == {"ours", "by_hand", "convolutions"}
        assert min(rate["lowest"] for rate in measured[phase]["images_per_s"].values()) > 10
    assert 20 < measured["memory_mb"] < 2000


def test_without_a_config_it_measures_cells_of_exp1_1(monkeypatch, capsys):
    exp1_1 = load_experiments([Path(__file__).parent.parent / "configs" / "exp1_1.yaml"], data="shapes")
    measured: dict[str, Settings] = {}
    monkeypatch.setattr(
        "tune_cnn.bench.measure_cell", lambda name, settings, *_: measured.update({name: settings}) or cell(name=name)
    )
    assert main(["bench"]) == 0
    assert list(measured) == ["K32_L2", "K32_L4", "K32_L8", "K64_L4"]
    trials = {experiment.name: experiment.settings.trial_id for experiment in exp1_1}
    assert {f"exp1_1_{name}": settings.trial_id for name, settings in measured.items()}.items() <= trials.items()


def test_what_was_measured_until_an_interruption_is_shown(config, monkeypatch, capsys):
    def measure(name: str, *_: object) -> dict[str, Any]:
        if name == "tiny_L2":
            raise KeyboardInterrupt
        return cell(name=name)

    monkeypatch.setattr("tune_cnn.bench.measure_cell", measure)
    assert main(["bench", str(config), "--out", "bench.json"]) == 130
    out, err = capsys.readouterr()
    assert out.startswith(cells_table([cell(name="tiny_L1")]))
    assert err == "cells: tiny_L1, tiny_L2\n\ninterrupted\n"
    assert [cell["name"] for cell in json.loads(Path("bench.json").read_text())["cells"]] == ["tiny_L1"]


def test_its_cells_are_found():
    assert _CELLS.is_file()
