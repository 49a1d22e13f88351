"""Whole sweeps, as a user starts them: how soon they show a result, what a trial costs beyond its training."""

import contextlib
import json
import math
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tune_cnn.bench import by_hand
from tune_cnn.bench.contenders import loop_by_hand
from tune_cnn.errors import TrialFailedError
from tune_cnn.machine import cores
from tune_cnn.settings import Settings

TRIVIAL_TRIALS = (14, 200, 1000)
_TRIVIAL = """\
run_name: trivial
seeds: {seeds}
settings: {{bs_train: 20, batches: 1, epochs: 1, filters_per_layer: [4], layers_per_block: 1, hidden_dims: [10]}}
data: {{source: shapes, in_size: [3, 8, 8], train_images: 100, test_images: 30}}
"""
# So that the grid takes long enough to tell, and its trials do not end early.
_GRID: dict[str, int | None] = {"epochs": 3, "batches": 200, "early_stopping": None}


@dataclass(frozen=True)
class SweepRun:
    """One sweep, timed from outside.

    Attributes:
        trials: How many it trained.
        first_result_s: From the command to its first line about a finished epoch.
        wall_s: From the command to its end, with result files, figures and report.
        memory_mb: The most that the command's own process kept in memory up to its last epoch, in megabytes; its
            trials have processes of their own. Not a number off Linux.
    """

    trials: int
    first_result_s: float
    wall_s: float
    memory_mb: float

    @property
    def per_trial_s(self) -> float:
        """What each trial took after the start."""
        return (self.wall_s - self.first_result_s) / self.trials


@dataclass(frozen=True)
class SweepSpeed:
    """What whole sweeps take.

    Attributes:
        trivial: Sweeps of so many trials that hardly train: all that they take is overhead.
        grid: A sweep of the cells.
        bare_training_s: The sum of its trials' own durations, each trained by itself with one thread.
        by_hand_s: What a script takes that reads the same images, then trains and tests the same cells in the loop
            written by hand, in fp32, one after the other with all cores; its start included.
        cores: Of the machine.
    """

    trivial: list[SweepRun]
    grid: SweepRun
    bare_training_s: float
    by_hand_s: float
    cores: int

    @property
    def share_of_ideal(self) -> float:
        """Of the wall time of the grid, the share that its bare training takes if it keeps every core busy."""
        return self.bare_training_s / self.cores / self.grid.wall_s

    @property
    def over_by_hand(self) -> float:
        """How many times as fast as the script the grid is."""
        return self.by_hand_s / self.grid.wall_s

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON values."""
        runs = [asdict(run) | {"per_trial_s": run.per_trial_s} for run in self.trivial]
        grid = asdict(self.grid) | {
            "bare_training_s": self.bare_training_s,
            "share_of_ideal": self.share_of_ideal,
            "by_hand_s": self.by_hand_s,
            "over_by_hand": self.over_by_hand,
        }
        rounded = [
            {key: None if math.isnan(value) else round(value, 3) for key, value in run.items()} for run in (*runs, grid)
        ]
        return {"trivial": rounded[:-1], "grid": rounded[-1], "cores": self.cores}

    def __str__(self) -> str:
        lines = [
            f"sweep of {run.trials} trivial trials: first result after {run.first_result_s:.1f} s, "
            f"{run.wall_s:.1f} s in all, {run.per_trial_s:.2f} s a trial, {run.memory_mb:.0f} MB"
            for run in self.trivial
        ]
        grid = self.grid
        return "\n".join(
            [
                *lines,
                f"sweep of {grid.trials} cells: first result after {grid.first_result_s:.1f} s, {grid.wall_s:.1f} s in "
                f"all, {self.share_of_ideal:.0%} of which {self.cores} cores need for {self.bare_training_s:.1f} s of "
                "bare training",
                f"the same cells by hand, one after the other: {self.by_hand_s:.1f} s; the sweep is "
                f"{self.over_by_hand:.2f} times as fast",
            ]
        )


def measure_sweeps(
    source: Sequence[str],
    cells: Mapping[str, Settings],
    say: Callable[[str], None],
    trivial: Sequence[int] = TRIVIAL_TRIALS,
) -> SweepSpeed:
    """Run sweeps of trivial trials, one of the cells, each cell by itself, and all of them by hand.

    Args:
        source: The cells' config file, and options that change its settings, as `tune-cnn sweep` takes them.
        cells: An experiment of each cell, and its settings.
        say: Is told what happens.
        trivial: Numbers of trials.

    Raises:
        TrialFailedError: A sweep failed.
    """
    with tempfile.TemporaryDirectory(prefix="tune_cnn-bench-") as name:
        scratch = Path(name)
        runs = []
        for count in trivial:
            say(f"sweep of {count} trivial trials")
            config = scratch / f"trivial{count}.yaml"
            config.write_text(_TRIVIAL.format(seeds=list(range(count))))
            runs.append(_sweep(scratch, count, [str(config)]))
        say(f"sweep of {len(cells)} cells")
        file, *options = source
        for key, value in _GRID.items():
            options += ["--set", f"{key}={json.dumps(value)}"]
        only = [argument for name in cells for argument in ("--only", name)]
        grid = _sweep(scratch, len(cells), [file, *options, *only, "--name", "grid"])
        bare_s = 0.0
        for name in cells:
            say(f"{name} by itself")
            _run(["trial", file, name, *options, "--threads", "1", "--device", "cpu", "--out", str(scratch)])
            bare_s += json.loads((scratch / f"{name}.json").read_text())["trial"]["duration_s"]
        say(f"{len(cells)} cells by hand")
        by_hand_s = _by_hand([replace(settings, **_GRID) for settings in cells.values()])  # type: ignore[arg-type]
        return SweepSpeed(runs, grid, bare_s, by_hand_s, cores())


def _sweep(scratch: Path, trials: int, arguments: Sequence[str]) -> SweepRun:
    places = ["--storage", str(scratch / "ray_results"), "--out", str(scratch / "results")]
    return SweepRun(trials, *_run(["sweep", *arguments, *places]))


def _run(arguments: Sequence[str]) -> tuple[float, float, float]:
    """Run a command; return when its first line about an epoch came, when it ended, in seconds, and its most MB.

    Raises:
        TrialFailedError: It failed; the message has the end of what it said.
    """
    started = time.perf_counter()
    first_s, most_mb = 0.0, float("nan")
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", "tune_cnn", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if "  epoch " in line:
                first_s = first_s or time.perf_counter() - started
                most_mb = _most_memory_mb(process.pid, most_mb)
    if process.returncode:
        raise TrialFailedError(f"tune-cnn {arguments[0]} failed, so it has no figures:\n{''.join(said[-5:])}")
    return first_s, time.perf_counter() - started, most_mb


def _most_memory_mb(process_id: int, before: float) -> float:
    """The most that a process has kept in memory; what was known before, where it has ended or off Linux."""
    # Not from `os.wait4`, whose figure for a child begins at what its parent had when it started it.
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process_id}/status").read_text())
        if found is not None:
            return int(found[1]) * 1024 / 1e6
    return before


def _by_hand(trials: Sequence[Settings]) -> float:
    """Train in a process of its own; return the seconds from its start to its end.

    Raises:
        TrialFailedError: It failed; it has said why.
    """
    started = time.perf_counter()
    process = multiprocessing.get_context("spawn").Process(target=_train_by_hand, args=(trials,))
    process.start()
    process.join()
    if process.exitcode:
        raise TrialFailedError("the training by hand failed, so it has no figures; see above")
    return time.perf_counter() - started


def _train_by_hand(trials: Sequence[Settings]) -> None:
    images = {source: by_hand.read(source) for source in {settings.data for settings in trials}}
    for settings in trials:
        train, validation, test = images[settings.data]
        loop = loop_by_hand(settings, train, validation)
        loop.fit(settings.epochs, settings.batches)
        loop.measure(test)
