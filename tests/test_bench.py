"""Figures of speed: that they measure what they say. How high they are is not tested, as machines are busy."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tune_cnn import data
from tune_cnn.bench import by_hand
from tune_cnn.bench.cells import CellSpeed, cells_table, measure_cell
from tune_cnn.bench.contenders import ByHand, Convolutions, Ours, Round
from tune_cnn.bench.whole_sweeps import SweepRun, SweepSpeed, measure_sweeps
from tune_cnn.bench.workers import Worker
from tune_cnn.cli import main
from tune_cnn.cli.commands.bench import _CELLS
from tune_cnn.errors import TrialFailedError
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.search_space import load_experiments

TINY = Settings(
    seed=3, bs_train=20, filters_per_layer=(4,), layers_per_block=2, hidden_dims=(10,),
    data=DataSettings("shapes", in_size=(3, 8, 8), train_images=400, test_images=10),
)  # fmt: skip
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
    Path("tiny.yaml").write_text(CONFIG)
    return Path("tiny.yaml")


# What is timed


def test_ours_and_the_loop_written_by_hand_train_the_same_numbers():
    work = Round.of(TINY, batches=3)
    figures = {}
    for contender in (Ours, ByHand):  # one after the other, as they draw from the same random state
        runner = contender(work)
        figures[contender] = [runner.train() if turn % 2 == 0 else runner.validate() for turn in range(6)]
    assert [len(losses) for losses in figures[Ours]] == [3, math.ceil(60 / 5)] * 3
    for losses, expected in zip(figures[Ours], figures[ByHand], strict=True):
        assert losses == pytest.approx(expected, rel=2e-3)
    assert figures[Ours][0][0] == pytest.approx(figures[ByHand][0][0], rel=1e-6)


def test_a_turn_has_the_images_of_its_batches_and_no_more():
    work = Round.of(TINY, batches=2)
    assert [part.count for part in work.images[:3]] == [40, 40, 10]
    assert work.images.nbytes == sum(part.images.nbytes + part.labels.nbytes for part in work.images[:3])
    assert [part.count for part in Round.of(TINY, batches=99).images[:3]] == [340, 60, 10]


@pytest.mark.parametrize(("precision", "ycn"), [("fp32", False), ("bf16", False), ("fp32", True)])
def test_the_limit_is_the_convolutions_of_the_network(precision, ycn, monkeypatch):
    work = Round.of(replace(TINY, precision=precision, ycn=ycn, pool_every=1), batches=2)
    convolutions = Convolutions(work)
    ran = []

    def record(run):
        return lambda *args, **how: (ran.append((args, how.get("gradient_of_input"))), run(*args, **how))

    for layer in convolutions.layers:
        monkeypatch.setattr(layer, "run", record(layer.run))
    convolutions.train()
    assert [layer.size for layer in convolutions.layers] == [(3, 8, 8), (4, 4, 4)]
    assert ran == [((20, 2), False), ((20, 2), True)]
    assert str(convolutions.layers[0].weight.dtype) == {"fp32": "torch.float32", "bf16": "torch.bfloat16"}[precision]
    convolutions.validate()
    assert len(ran) == 4


@pytest.mark.parametrize("limits", [{}, {"train_images": 20, "test_images": 3}])
def test_the_script_by_hand_reads_as_many_images_as_a_trial_has(image_folder, limits):
    folder = data.resolve(DataSettings("image_folder", str(image_folder), in_size=(3, 12, 12), **limits))
    for ours, theirs in zip(data.load(folder)[:3], by_hand.read(folder), strict=True):
        assert len(theirs) == ours.count
    if not limits:  # otherwise it takes the first ones
        ours = {(image.tobytes(), int(label)) for image, label in zip(*data.load(folder).test, strict=True)}
        read = by_hand.read(folder)[2]
        assert {
            ((255 * image).round().byte().permute(1, 2, 0).numpy().tobytes(), label) for image, label in read
        } == ours


def test_the_script_by_hand_reads_cifar10(cifar10_archive):
    cifar10_archive(images_per_batch=24)
    source = data.resolve(DataSettings("cifar10"))
    images = data.load(source)  # which downloads it
    train, _, test = by_hand.read(source)
    assert (len(train), len(test)) == (images.train.count, images.test.count)
    assert sorted(label for _, label in train) == sorted(images.train.labels)
    assert [label for _, label in test] == images.test.labels.tolist()


# Taking turns


def test_the_contenders_take_turns_in_new_processes(monkeypatch):
    log: list[object] = []

    class Recorded:
        def __init__(self, contender: str, work: Round, threads: int) -> None:
            self.contender = contender
            log.append("new")

        def __enter__(self) -> "Recorded":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def wait(self) -> None:
            pass

        def ask(self, what: str) -> float:
            log.append((what, self.contender))
            return float(len(log))

    monkeypatch.setattr("tune_cnn.bench.cells.Worker", Recorded)
    speed = measure_cell("tiny", TINY, batches=1, rounds=2, threads=1, say=log.append)
    turns = [(phase, name) for phase in ("train", "validate") for name in ("ours", "by_hand", "convolutions")]
    each = ["new", "new", "new", ("memory", "ours"), *turns]
    assert log == ["tiny: round 1 of 2", *each, "tiny: round 2 of 2", *each]
    assert speed.rates["train"] == {"ours": [6, 17], "by_hand": [7, 18], "convolutions": [8, 19]}
    assert speed.rates["validate"] == {"ours": [9, 20], "by_hand": [10, 21], "convolutions": [11, 22]}
    assert speed.memory_mb == 16


def test_an_error_of_a_process_is_told():
    work = Round.of(TINY, batches=1)
    unfit = work._replace(settings=replace(TINY, layers_per_block=9, pool_every=1))
    with Worker("ours", unfit, 1) as worker, pytest.raises(ValueError, match="below 1x1"):
        worker.wait()


# What is shown


def cell(memory_mb: float = 123.4) -> CellSpeed:
    rates = {
        "train": {"ours": [200.0, 300.0, 330.0], "by_hand": [100.0, 100.0, 100.0], "convolutions": [400.0] * 3},
        "validate": {"ours": [3000.0] * 3, "by_hand": [1000.0, 1500.0, 1000.0], "convolutions": [9000.0] * 3},
    }
    return CellSpeed("K4_L2", TINY, rates, memory_mb)


def test_the_table_has_medians_and_the_spread_of_the_ratios():
    assert cells_table([cell()]).split("\n") == [
        "cell   precision  train img/s  by hand  convs alone            x by hand  of convs  "
        "val img/s  by hand            x by hand  of convs   MB",
        "K4_L2  fp32               300      100          400  3.00 (2.00 to 3.30)       75%      "
        "3,000    1,000  3.00 (2.00 to 3.00)       33%  123",
    ]


def test_the_figures_are_json_values():
    figures = cell().to_json()
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["training"]["ours_over_by_hand"] == {"median": 3.0, "lowest": 2.0, "highest": 3.3}
    assert figures["training"]["ours_over_convolutions"]["median"] == 0.75
    assert figures["validation"]["images_per_s"]["by_hand"] == {"median": 1000.0, "lowest": 1000.0, "highest": 1500.0}
    assert figures["memory_mb"] == 123.4
    assert cell(math.nan).to_json()["memory_mb"] is None
    assert cells_table([cell(math.nan)]).endswith("  -")


def test_the_ideal_is_a_grid_that_keeps_every_core_busy():
    speed = SweepSpeed(
        [SweepRun(20, 8.0, 12.0, 501.6)], SweepRun(4, 9.0, 40.0, 700.0), bare_training_s=60.0, by_hand_s=100.0, cores=2
    )
    assert speed.share_of_ideal == 0.75
    assert speed.over_by_hand == 2.5
    assert speed.to_json() == {
        "trivial": [{"trials": 20, "first_result_s": 8.0, "wall_s": 12.0, "memory_mb": 501.6, "per_trial_s": 0.2}],
        "grid": {
            "trials": 4, "first_result_s": 9.0, "wall_s": 40.0, "memory_mb": 700.0, "bare_training_s": 60.0,
            "share_of_ideal": 0.75, "by_hand_s": 100.0, "over_by_hand": 2.5,
        },
        "cores": 2,
    }  # fmt: skip
    assert str(speed).split("\n") == [
        "sweep of 20 trivial trials: first result after 8.0 s, 12.0 s in all, 0.20 s a trial, 502 MB",
        "sweep of 4 cells: first result after 9.0 s, 40.0 s in all, 75% of which 2 cores need for 60.0 s of bare "
        "training",
        "the same cells by hand, one after the other: 100.0 s; the sweep is 2.50 times as fast",
    ]


# The command


def test_the_command_measures_each_distinct_cell(config, capsys):
    arguments = ["bench", str(config), "--only", "*_L2", "--set", "seed=1", "--threads", "1", "--batches", "2"]
    assert main([*arguments, "--rounds", "1", "--out", "new/bench.json"]) == 0
    out, err = capsys.readouterr()
    header, row, last = out.splitlines()
    assert header.startswith("cell  ")
    assert row.startswith("tiny_L2  fp32  ")
    assert last == "figures: new/bench.json"
    assert err.splitlines() == ["tiny_L2: round 1 of 1"]
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
        "tune_cnn.cli.commands.bench.measure_cell",
        lambda name, settings, *_: measured.update({name: settings}) or replace(cell(), name=name, settings=settings),
    )
    assert main(["bench"]) == 0
    assert list(measured) == ["K32_L2", "K32_L4", "K32_L8", "K64_L4"]
    trials = {experiment.name: experiment.settings.trial_id for experiment in exp1_1}
    assert {f"exp1_1_{name}": settings.trial_id for name, settings in measured.items()}.items() <= trials.items()


@pytest.mark.slow
def test_whole_sweeps_are_measured(config):
    (settings,) = [e.settings for e in load_experiments([config], overrides=["seed=1"], only=["tiny_L1"])]
    speed = measure_sweeps([str(config), "--set", "seed=1"], {"tiny_L1": settings}, lambda _: None, trivial=[2])
    assert [run.trials for run in (*speed.trivial, speed.grid)] == [2, 1]
    for run in (*speed.trivial, speed.grid):
        assert 0 < run.first_result_s < run.wall_s
        assert 50 < run.memory_mb < 5000
    assert 0 < speed.share_of_ideal < 1
    assert speed.by_hand_s > 1  # it has to start, too


def test_a_sweep_that_fails_says_why(tmp_path):
    with pytest.raises(TrialFailedError, match=r"tune-cnn sweep failed[^$]*no such file"):
        measure_sweeps([str(tmp_path / "none.yaml")], {"x": TINY}, lambda _: None, trivial=[])


def test_its_cells_are_found():
    assert _CELLS.is_file()
