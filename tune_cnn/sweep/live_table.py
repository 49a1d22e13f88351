"""The live table of a sweep."""

import contextlib
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tune_cnn.early_stopping import how_ended
from tune_cnn.machine import gpu_use
from tune_cnn.settings import Settings
from tune_cnn.texts import duration, printable
from tune_cnn.waiting import REMIND_S

_MOST_ROWS = 24  # trials in the live table; those that ended first scroll out of it
_SUMMARY_S = 60.0
_MOST_LINES = 2000  # without a terminal, one per epoch; a sweep with more epochs shows one per trial and one a minute
_FIRST = "waiting for the first batches"
_RETRIED = "to be retried"
_GPU_INTERVAL_S = 5.0
# The columns, each with the width that a terminal must have to show it: the names of trials stay readable.
_COLUMNS = {
    "trial": 0, "state": 0, "epoch": 0, "loss": 72, "val loss": 64, "val %": 56, "best %": 0, "s/epoch": 80,
}  # fmt: skip


class EpochProgress(NamedTuple):
    """A trial's current epoch, counted from 1, and how many of its batches have been trained on."""

    epoch: int
    batch: int
    batches: int


@dataclass
class _Row:
    settings: Settings
    epochs_done: int
    state: str = "waiting"
    result: Mapping[str, Any] | None = None

    @property
    def is_going(self) -> bool:
        return self.state in ("running", _RETRIED)

    @property
    def has_ended(self) -> bool:
        return not self.is_going and self.state != "waiting"


class Progress:
    """Shows the progress of a sweep's trials: one compact table on a terminal, else a line per finished epoch or trial.

    Args:
        trials: Label and settings of every trial that will run.
        epochs_done: Number of epochs that trials start with, by label.
        already_done: Number of other trials, which were finished before.
        within_epoch: Returns the progress of the trial with a label within its epoch, if known.
        upcoming: Number of trials that will be added later.
    """

    def __init__(
        self,
        trials: Mapping[str, Settings],
        epochs_done: Mapping[str, int] = {},
        already_done: int = 0,
        console: Console | None = None,
        within_epoch: Callable[[str], EpochProgress | None] = lambda label: None,
        upcoming: int = 0,
    ) -> None:
        self._rows = {label: _Row(settings, epochs_done.get(label, 0)) for label, settings in trials.items()}
        self._already_done, self._upcoming = already_done, upcoming
        self._within_epoch = within_epoch
        self._is_silent = True  # no trial has been shown yet
        self._gpu_use, self._gpus_asked = "", -math.inf
        self._over = threading.Event()
        self._started = time.monotonic()
        # A notebook gets plain lines of text.
        self._console = console or Console(stderr=True, force_jupyter=False, force_terminal=sys.stderr.isatty())
        self._has_table = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> "Progress":
        if self._has_table:
            self._live.start()
        else:
            self.say(_FIRST)
            threading.Thread(target=self._remind, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._has_table:
            self._live.stop()

    def added(self, label: str, settings: Settings, epochs_done: int = 0) -> None:
        """Add a trial whose settings have been suggested."""
        self._rows = {**self._rows, label: _Row(settings, epochs_done)}  # a new dict: threads may iterate over the old
        self._upcoming = max(self._upcoming - 1, 0)

    def dropped(self, label: str) -> None:
        """Expect one trial fewer: the settings suggested for it need no training."""
        self._upcoming = max(self._upcoming - 1, 0)
        self._line(f"{label}  suggested again; it is trained only once  ({self._ended()} trials ended)")

    def started(self, label: str) -> None:
        """Show a trial, which has got its cores, as running."""
        self._rows[label].state = "running"

    def reported(self, label: str, result: Mapping[str, Any]) -> None:
        """Show the results of a trial's finished epoch."""
        row = self._rows[label]
        if row.result is not None and result["epoch"] <= row.result["epoch"]:
            return  # trained again after its process was lost, or the last epoch, which is reported twice
        row.result, row.epochs_done = result, int(result["epoch"])
        if not self._is_brief():
            self._line(
                f"{label}  epoch {result['epoch']}/{result['epochs']}  train loss {result['train_loss']:.3f}  "
                f"val loss {result['validation_loss']:.3f}  val acc {result['validation_accuracy']:.1f} %  "
                f"best {result['best_validation_accuracy']:.1f} %  {result['epoch_duration_s']:.1f} s"
            )

    def ended(self, label: str, reason: str | None, failure: str | None = None) -> None:
        """Show how a trial ended, by its `stop_reason` or failure; the table shows only the first words."""
        row = self._rows[label]
        how = how_ended(reason, row.epochs_done, row.settings.epochs, row.settings.early_stopping, failure)
        row.state = "finished" if reason == "epochs" else how.partition(":")[0]
        if failure is None:
            best = f"  best {row.result['best_validation_accuracy']:.1f} %" if row.result else ""
            self._line(f"{label}  {how}{best}  ({self._ended()} trials ended)")
        else:
            self.say(f"{label}  {how}")

    def to_be_retried(self, label: str, why: str) -> None:
        """Show that a trial failed and will be retried."""
        self._rows[label].state = _RETRIED
        self.say(f"{label}: {why}; retrying")

    def say(self, message: str) -> None:
        """Show a message above the table."""
        with contextlib.suppress(Exception, SystemExit):  # a full disk; rich exits when a pipe is closed
            self._console.print(printable(message, keep="\n"), markup=False, highlight=False, soft_wrap=True)

    def _remind(self) -> None:
        """Without a terminal: report ever less often, at last once a minute, what is waited for, or how far all are."""
        next_s = 0.0
        while not self._over.wait(REMIND_S):
            passed_s = time.monotonic() - self._started
            found = {label: progress for label, row in self._rows.items() if (progress := self._current(label, row))}
            if passed_s < next_s and not (self._is_silent and found):  # the first batches are shown at once
                continue
            if self._is_silent and not found:
                self.say(f"{_FIRST} ({passed_s:.0f} s)")
            else:
                for label, (epoch, batch, batches) in () if self._is_brief() else found.items():
                    self._line(f"{label}  batch {batch}/{batches} of epoch {epoch}")
                self._line(self._summary())
            next_s = passed_s + min(passed_s, _SUMMARY_S)

    def _current(self, label: str, row: _Row) -> EpochProgress | None:
        progress = self._within_epoch(label) if row.state == "running" else None
        return progress if progress is not None and progress.epoch > row.epochs_done else None

    def _line(self, text: str) -> None:
        self._is_silent = False
        if not self._has_table:
            self.say(text)

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        places = [place for place, least in enumerate(_COLUMNS.values()) if self._console.width >= least]
        for place, name in [(place, [*_COLUMNS][place]) for place in places]:
            # If there is too little room, the trial's name is truncated first.
            table.add_column(name, justify="right" if place > 1 else "left", no_wrap=place > 0, overflow="ellipsis")
        rows = list(self._rows.items())
        going = [row for row in rows if row[1].is_going]
        ended = [row for row in rows if row[1].has_ended]
        waiting = [row for row in rows if row[1].state == "waiting"]
        room = max(min(_MOST_ROWS, self._console.height - 4), 1)
        shown = [*ended[-max(room - len(going), 0) :], *going][-room:]
        for label, row in [*shown, *waiting[: room - len(shown)]]:
            cells = self._cells(label, row)
            table.add_row(*(Text(printable(cells[place])) for place in places))
        return Group(table, Text(printable(self._summary()), no_wrap=True, overflow="ellipsis"))

    def _summary(self) -> str:
        """How many trials have ended, when all will have, the best accuracy so far, and how busy the GPUs are."""
        rows = list(self._rows.values())
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        going, at_once = sum(row.is_going for row in rows), sum(row.state == "running" for row in rows)
        lefts: list[tuple[float, float | None]] = [
            (0 if row.has_ended else row.settings.epochs - row.epochs_done, (row.result or {}).get("epoch_duration_s"))
            for row in rows
        ]
        if rows:  # an upcoming trial is assumed to be as long as these on average
            lefts += self._upcoming * [(statistics.fmean(row.settings.epochs for row in rows), None)]
        best = max((row.result["best_validation_accuracy"] for row in rows if row.result), default=None)
        if time.monotonic() - self._gpus_asked > _GPU_INTERVAL_S:
            self._gpu_use, self._gpus_asked = gpu_use(), time.monotonic()
        parts = (
            f"{self._ended()} trials ended, {going} running, {minutes} min {seconds} s",
            time_left(lefts, at_once),
            "" if best is None else f"best so far {best:.1f} %",
            self._gpu_use,
        )
        return "; ".join(filter(None, parts))

    def _is_brief(self) -> bool:
        epochs = [row.settings.epochs for row in self._rows.values()]
        return sum(epochs) + self._upcoming * statistics.fmean(epochs or [0]) > _MOST_LINES

    def _ended(self) -> str:
        """How many of all trials have ended: `3/8`."""
        ended = self._already_done + sum(row.has_ended for row in self._rows.values())
        return f"{ended}/{self._already_done + len(self._rows) + self._upcoming}"

    def _cells(self, label: str, row: _Row) -> list[str]:
        progress = self._current(label, row)
        state = f"batch {progress.batch}/{progress.batches}" if progress is not None else row.state
        numbers = [""] * 5
        if result := row.result:
            losses = [f"{result[key]:.3f}" for key in ("train_loss", "validation_loss")]
            others = ("validation_accuracy", "best_validation_accuracy", "epoch_duration_s")
            numbers = [*losses, *(f"{result[key]:.1f}" for key in others)]
        return [label, state, f"{row.epochs_done}/{row.settings.epochs}", *numbers]


def time_left(trials: Sequence[tuple[float, float | None]], at_once: int) -> str:
    """When all trials will have ended if none stops early: `about 5 min left, until Fri 14:05`; empty if unknown.

    Each of the `trials` is the number of its epochs left, and the seconds of its last epoch, None before the first.
    """
    measured = [epoch_s for _, epoch_s in trials if epoch_s is not None]
    if not measured or not any(epochs for epochs, _ in trials):
        return ""
    mean_s = statistics.fmean(measured)
    lefts_s = [epochs * (mean_s if epoch_s is None else epoch_s) for epochs, epoch_s in trials]
    left_s = max(sum(lefts_s) / max(at_once, 1), *lefts_s)
    until = time.strftime(", until %a %H:%M", time.localtime(time.time() + left_s)) if left_s < 6 * 86_400 else ""
    return f"about {duration(left_s)} left{until}"
