"""What a running sweep shows: a table on a terminal, a line for each epoch elsewhere."""

import errno
import io
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from rich.console import Console

from tune_cnn.settings import Settings
from tune_cnn.sweep import live_table
from tune_cnn.sweep.live_table import EpochProgress, Progress, time_left
from tune_cnn.sweep.watcher import CountedBatches

RESULT = {
    "epoch": 7, "epochs": 30, "train_loss": 1.23456, "validation_loss": 1.5, "validation_accuracy": 55.04,
    "best_validation_accuracy": 56.06, "epoch_duration_s": 12.34,
}  # fmt: skip
LABELS = ["K32_L2_0d29faf2", "K32_L4_bde69615", "K256_L16_863cc9d1"]
HEADER = ["trial", "state", "epoch", "loss", "val loss", "val %", "best %", "s/epoch"]


def trials(*labels: str) -> dict[str, Settings]:
    return dict.fromkeys(labels, Settings(epochs=30))


class Terminal:
    """A terminal of a fixed size; `screen` is the table that it would show now."""

    def __init__(
        self,
        progress_of: dict[str, Settings],
        already_done: int = 0,
        width: int = 100,
        height: int = 25,
        **further: Any,
    ) -> None:
        self.file = io.StringIO()
        self.console = Console(
            file=self.file, width=width, height=height, force_terminal=True, color_system=None, legacy_windows=False
        )
        self.progress = Progress(progress_of, {}, already_done, self.console, **further)

    @property
    def said(self) -> str:
        return self.file.getvalue()

    @property
    def screen(self) -> list[str]:
        with self.console.capture() as capture:
            self.console.print(self.progress._table())
        return capture.get().splitlines()


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


# Elsewhere: in a file, a pipe, a batch system


def test_without_a_terminal_each_epoch_is_a_line_on_stderr(capsys):
    with Progress(trials(*LABELS)) as progress:
        progress.started(LABELS[0])
        progress.reported(LABELS[0], RESULT)
        progress.ended(LABELS[0], "plateau")
        progress.ended(LABELS[1], None, "epoch 3: RuntimeError: [red]boom[/red] " + "x" * 200)
        progress.say("warning: [bold]" + "y" * 200)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "waiting for the first batches",
        "K32_L2_0d29faf2  epoch 7/30  train loss 1.235  val loss 1.500  val acc 55.0 %  best 56.1 %  12.3 s",
        "K32_L2_0d29faf2  stopped early: no better for 3 epochs  best 56.1 %  (1/3 trials ended)",
        "K32_L4_bde69615  failed: epoch 3: RuntimeError: [red]boom[/red] " + "x" * 200,
        "warning: [bold]" + "y" * 200,
    ]


def test_a_terminal_that_cannot_move_its_cursor_gets_lines():  # such as a shell in Emacs
    terminal = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    with Progress(trials(*LABELS), console=terminal) as progress, terminal.capture() as said:
        progress.ended(LABELS[0], "plateau")
    assert said.get() == "K32_L2_0d29faf2  stopped early: no better for 3 epochs  (1/3 trials ended)\n"


def test_a_diverged_epoch_is_a_line_too(capsys):
    Progress(trials(*LABELS)).reported(LABELS[0], {**RESULT, "train_loss": float("nan")})
    assert "train loss nan" in capsys.readouterr().err


def test_a_log_that_cannot_be_written_ends_no_sweep():
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with Progress(trials(*LABELS), console=Console(file=Full())) as progress:
        progress.reported(LABELS[0], RESULT)
        progress.ended(LABELS[0], "plateau")
        assert progress._summary().startswith("1/3 trials ended")


# On a terminal


def test_the_table_shows_state_numbers_and_how_many_have_ended():
    terminal = Terminal(trials(*LABELS), already_done=3)
    progress = terminal.progress
    progress.started(LABELS[0])
    progress.reported(LABELS[0], RESULT)
    progress.ended(LABELS[0], "plateau")
    progress.started(LABELS[1])
    header, *rows, summary = terminal.screen
    assert cells(header) == HEADER
    assert [cells(row) for row in rows] == [
        ["K32_L2_0d29faf2", "stopped early", "7/30", "1.235", "1.500", "55.0", "56.1", "12.3"],
        ["K32_L4_bde69615", "running", "0/30"],
        ["K256_L16_863cc9d1", "waiting", "0/30"],
    ]
    # 30 epochs of the running and of the waiting trial, each as long as the one that was measured
    said = r"4/6 trials ended, 1 running, 0 min 0 s; about 12 min 20 s left, until \w{3} \d\d:\d\d; "
    assert re.fullmatch(said + "best so far 56.1 %", summary)
    assert terminal.said == ""  # the table says it all


def test_the_end_counts_the_trials_that_are_not_suggested_yet():
    terminal = Terminal({}, upcoming=3)
    assert terminal.screen[-1] == "0/3 trials ended, 0 running, 0 min 0 s"
    terminal.progress.added(LABELS[0], Settings(epochs=30))
    terminal.progress.started(LABELS[0])
    terminal.progress.reported(LABELS[0], {**RESULT, "epoch": 20, "epoch_duration_s": 60.0})
    assert "; about 1 h 10 min left, until " in terminal.screen[-1]  # 10 epochs and twice 30
    terminal.progress.dropped(LABELS[0])
    assert terminal.screen[-1].startswith("0/2 trials ended, 1 running, 0 min 0 s; about 40 min")


@pytest.mark.parametrize(
    ("epochs", "said"), [(518, r"about 143 h 53 min left, until \w+ \d\d:\d\d"), (10**17, r"about \d+ h \d+ min left")]
)
def test_a_weekday_is_told_where_it_says_which_day(epochs, said):
    assert re.fullmatch(said, time_left([(epochs, 1000.0)], 1))


def test_a_trial_to_be_retried_has_not_ended():
    terminal = Terminal(trials(*LABELS))
    terminal.progress.started(LABELS[0])
    terminal.progress.to_be_retried(LABELS[0], "its process was lost")
    assert cells(terminal.screen[1])[:2] == [LABELS[0], "to be retried"]
    assert terminal.screen[-1].startswith("0/3 trials ended, 1 running")


def test_a_long_failure_stands_above_the_table_and_leaves_the_numbers_legible():
    terminal = Terminal(trials(*LABELS), width=80)
    failure = "epoch 3: RuntimeError: " + ", ".join(["CUDA error and much to say about it"] * 6)
    terminal.progress.reported(LABELS[0], RESULT)
    terminal.progress.ended(LABELS[0], None, failure)
    assert terminal.said == f"{LABELS[0]}  failed: {failure}\n"
    failed = next(row for row in terminal.screen if row.startswith(LABELS[0]))
    assert cells(failed) == [LABELS[0], "failed", "7/30", "1.235", "1.500", "55.0", "56.1", "12.3"]


def test_a_terminal_of_80_columns_shows_every_number_whole():
    terminal = Terminal(trials(*LABELS), width=80)
    for label in LABELS:
        terminal.progress.reported(label, RESULT)
        terminal.progress.started(label)
    first, *rows, _ = terminal.screen
    assert cells(first) == HEADER
    for label, row in zip(LABELS, rows, strict=True):
        assert cells(row) == [label, "running", "7/30", "1.235", "1.500", "55.0", "56.1", "12.3"]
        assert len(row) <= 80


@pytest.mark.parametrize(("width", "columns"), [(79, 7), (70, 6), (60, 5), (50, 4)])
def test_a_narrow_terminal_shows_whole_names_and_fewer_columns(width, columns):
    terminal = Terminal(trials(*LABELS), width=width)
    for label in LABELS:
        terminal.progress.reported(label, RESULT)
    first, *rows, _ = terminal.screen
    assert cells(first)[:3] == HEADER[:3]
    assert [len(cells(row)) for row in (first, *rows)] == [columns] * (1 + len(LABELS))
    assert [cells(row)[0] for row in rows] == list(LABELS)


def test_a_name_that_is_too_long_is_cut_and_the_numbers_are_not():
    label = "K" + "-".join(["64"] * 20) + "_L2_0d29faf2"
    terminal = Terminal(trials(label), width=80)
    terminal.progress.reported(label, RESULT)
    row = cells(terminal.screen[1])
    assert row[0].startswith("K64-64-64")
    assert row[0].endswith("…")
    assert row[2:] == ["7/30", "1.235", "1.500", "55.0", "56.1", "12.3"]


def test_trials_can_be_added_while_the_table_is_drawn():
    terminal = Terminal({}, height=5)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # seconds; the threads take turns far more often than usual
    try:
        with ThreadPoolExecutor(1) as thread:
            adding = thread.submit(lambda: [terminal.progress.added(f"K{n}", Settings()) for n in range(3000)])
            while not adding.done():
                terminal.progress._table()
    finally:
        sys.setswitchinterval(before)
    assert terminal.screen[-1].startswith("0/3000 trials ended")


@pytest.mark.parametrize("height", [5, 12, 25, 60])
@pytest.mark.parametrize("running", [0, 2, 30])
def test_a_thousand_trials_fit_the_screen_and_those_that_run_are_shown_first(height, running):
    labels = [f"K{n}_L2_{n:08x}" for n in range(1000)]
    terminal = Terminal(trials(*labels), height=height)
    for label in labels[:500]:
        terminal.progress.ended(label, "epochs")
    for label in labels[500 : 500 + running]:
        terminal.progress.started(label)
    _, *rows, summary = terminal.screen
    assert len(rows) + 2 <= height
    assert summary.startswith(f"500/1000 trials ended, {running} running")
    states = [cells(row)[1] for row in rows]
    assert states.count("running") == min(running, len(rows))
    assert len(rows) >= min(height - 4, 24)


def test_the_live_table_leaves_the_terminal_as_it_was():
    terminal = Terminal(trials(*LABELS))
    with terminal.progress as progress:
        progress.started(LABELS[0])
        progress.say("kept above")
        progress._live.refresh()
    assert "K32_L2_0d29faf2" in terminal.said
    assert "kept above\n" in terminal.said
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert terminal.said.rindex(shown) > terminal.said.rindex(hidden)  # the cursor


# Within an epoch


def test_without_a_terminal_the_first_batches_and_long_epochs_are_told(capsys, monkeypatch):
    monkeypatch.setattr(live_table, "REMIND_S", 0.05)
    monkeypatch.setattr(live_table, "_SUMMARY_S", 0.5)
    within: dict[str, EpochProgress] = {}
    with Progress(trials(*LABELS), within_epoch=within.get) as progress:
        time.sleep(0.5)
        first, second, *others = capsys.readouterr().err.splitlines()
        assert (first, second) == ("waiting for the first batches", "waiting for the first batches (0 s)")
        assert len(others) <= 4, "not ever less often"
        within[LABELS[2]] = EpochProgress(1, 3, 850)  # of a trial that is not known to run yet
        progress.started(LABELS[0])
        within[LABELS[0]] = EpochProgress(1, 120, 850)
        time.sleep(0.2)
        *_, batches, summary = capsys.readouterr().err.splitlines()
        assert batches == "K32_L2_0d29faf2  batch 120/850 of epoch 1"
        assert summary.startswith("0/3 trials ended, 1 running, 0 min ")
        progress.reported(LABELS[0], RESULT)
        within[LABELS[0]] = EpochProgress(7, 850, 850)  # of the epoch that was reported
        time.sleep(0.8)
        assert "batch" not in capsys.readouterr().err
        within[LABELS[0]] = EpochProgress(8, 9, 850)
        time.sleep(0.8)
        assert "K32_L2_0d29faf2  batch 9/850 of epoch 8\n" in capsys.readouterr().err
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_of_very_many_epochs_a_line_a_trial_and_one_a_minute_are_told(capsys, monkeypatch):
    monkeypatch.setattr(live_table, "REMIND_S", 0.05)
    monkeypatch.setattr(live_table, "_SUMMARY_S", 0.3)
    many = {**trials(*LABELS), **{f"K8_L1_{number:08x}": Settings(epochs=30) for number in range(100)}}
    with Progress(many) as progress:
        progress.started(LABELS[0])
        progress.reported(LABELS[0], RESULT)
        progress.ended(LABELS[0], "plateau")
        time.sleep(0.7)
        waiting, ended, *minutes = capsys.readouterr().err.splitlines()
    assert waiting == "waiting for the first batches"
    assert ended == f"{LABELS[0]}  stopped early: no better for 3 epochs  best 56.1 %  (1/103 trials ended)"
    assert 1 <= len(minutes) <= 5
    assert all(line.startswith("1/103 trials ended, 0 running, 0 min 0 s; about ") for line in minutes)


def test_epochs_of_trials_that_are_not_suggested_yet_count_as_very_many_too(capsys):
    progress = Progress({}, upcoming=100)
    progress.added(LABELS[0], Settings(epochs=30))
    progress.reported(LABELS[0], RESULT)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_shows_the_batch_of_a_long_epoch(width):
    within = {LABELS[0]: EpochProgress(8, 120, 850), LABELS[1]: EpochProgress(1, 5, 850)}
    terminal = Terminal(trials(*LABELS), width=width, within_epoch=within.get)
    for label in LABELS[:2]:
        terminal.progress.started(label)
    terminal.progress.reported(LABELS[0], RESULT)
    assert cells(terminal.screen[1])[:6] == [LABELS[0], "batch 120/850", "7/30", "1.235", "1.500", "55.0"]
    assert cells(terminal.screen[2])[:3] == [LABELS[1], "batch 5/850", "0/30"]
    terminal.progress.ended(LABELS[0], "plateau")
    assert cells(terminal.screen[1])[1] == "stopped early"


def test_batches_are_told_every_few_seconds_and_come_out_as_they_went_in(monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: next(now))  # each look at the clock is a second later
    told: list[tuple[int, int]] = []
    batches = CountedBatches(list("abcdefgh"), lambda *progress: told.append(progress))
    assert (list(batches), len(batches)) == (list("abcdefgh"), 8)
    assert told == [(3, 8), (6, 8)]
