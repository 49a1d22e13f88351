"""The files of one trial of a sweep: checkpoints while it trains, then its record and weights."""

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tune_cnn.errors import ConfigError, ResultError
from tune_cnn.files import BESIDE_SUFFIX, MOST_BYTES, parse_json
from tune_cnn.models import cost
from tune_cnn.result_files import parse_result, to_strict_json
from tune_cnn.settings import Settings, parse_settings
from tune_cnn.sweep.folder import Folder
from tune_cnn.train_results import FitResult
from tune_cnn.training.state import MOST_BYTES as MOST_STATE_BYTES
from tune_cnn.training.state import state_from_bytes, state_to_bytes

_CHECKPOINT = re.compile(r"epoch_(\d+)\.pt", re.ASCII)
_STOP = "stop.txt"  # after which epoch a scheduler ends the trial
_MOST_CHARACTERS = 1000  # of a failure
KEPT_CHECKPOINTS = 2  # if the newest is damaged, the one before it is used


class TrialFolder:
    """The files of one trial."""

    def __init__(self, trials: Folder, settings: Settings) -> None:
        self._settings = settings
        self.trial_id = settings.trial_id
        self.label = f"{settings.label[:60]}_{self.trial_id}"
        self.folder = trials / self.label

    @property
    def _most(self) -> int:
        """Maximum bytes of a file: weights, Adam's two moments, EMA and best weights take 20 bytes a parameter."""
        if self._settings.model is not None:  # its cost is unknown without running its code
            return MOST_STATE_BYTES
        return MOST_BYTES + 40 * cost(self._settings).parameters

    def checkpoints(self) -> dict[int, str]:
        """The names of its checkpoints by their number of completed epochs, the newest first."""
        by_epoch = {int(match[1]): name for name in self.folder.names() if (match := _CHECKPOINT.fullmatch(name))}
        return dict(sorted(by_epoch.items(), reverse=True))

    def save_checkpoint(self, epoch: int, state: dict[str, Any]) -> None:
        """Add a checkpoint; delete those that are too old, and the file of a failure that has been overcome."""
        self.folder.write(_checkpoint(epoch), state_to_bytes(state))
        # Checkpoints of later epochs are damaged: otherwise the training would have continued from them.
        checkpoints = self.checkpoints()
        kept = [number for number in checkpoints if number <= epoch][:KEPT_CHECKPOINTS]
        for name in [name for number, name in checkpoints.items() if number not in kept]:
            self.folder.delete(name)
        if (failure := self.failure()) is not None:
            failed = re.match(r"epoch (\d+)", failure, re.ASCII)
            if failed is None or int(failed[1]) <= epoch:
                self.folder.delete("error.txt")

    def resume(self, load: Callable[[dict[str, Any]], object]) -> list[str]:
        """Pass the newest undamaged checkpoint to `load`, and the one before it if `load` raises a ResultError.

        Only for the process that trains the trial: files that a killed one left half-written are deleted.

        Returns:
            A warning for each checkpoint that is damaged or does not fit.
        """
        warnings: list[str] = []
        for name in self.folder.names():
            if name.endswith(BESIDE_SUFFIX):
                self.folder.delete(name)
        for name in self.checkpoints().values():
            state = None
            try:
                if (state := self._state(name)) is None:
                    continue
                load(state)
                return warnings
            except ResultError as error:
                fault = "damaged" if state is None else f"does not fit ({error})"
            warnings.append(f"{self.folder}/{name}: {fault}; the training continues from what was before it")
        return warnings

    def newest_state(self) -> dict[str, Any] | None:
        """The content of the newest undamaged checkpoint, even of a trial that is training; None: there is none."""
        for _ in range(2):  # a process that trains it may have replaced the listed ones
            for name in self.checkpoints().values():
                with contextlib.suppress(ResultError):
                    if (state := self._state(name)) is not None:
                        return state
        return None

    def as_it_stands(self, state: Mapping[str, Any] | None) -> tuple[FitResult, dict[str, Any]] | None:
        """Results and facts of the unfinished trial, from its `newest_state`; None if that has no history."""
        state = state or {}
        try:
            history = FitResult.from_state(state.get("history"))
        except ResultError:
            return None
        durations_s = state.get("epoch_durations_s", [])
        return history, {
            "best_epoch": history.best_epoch,
            "best_validation_accuracy": history.best_accuracy,
            "duration_s": math.fsum(durations_s),
            "epoch_durations_s": durations_s,
            **state.get("summary", {}),  # version 0.1.0 kept none
            "id": self.trial_id,  # that of the state differs if it was trained with other `epochs`
            **dict.fromkeys(("test_accuracy", "test_loss", "confusion", "stop_reason")),
            "unfinished": True,
        }

    def best_weights(self) -> dict[str, Any] | None:
        """The weights with the best validation accuracy so far; None: no epoch is finished, or they are damaged."""
        with contextlib.suppress(ResultError):
            if self.is_finished() and (best := self._load("best.pt")) is not None:
                return best
        return (self.newest_state() or {}).get("best_weights")

    def _state(self, name: str) -> dict[str, Any] | None:
        state = self._load(name)
        if state is not None and "best_weights" not in state and (best := self._load("best.pt")) is not None:
            state["best_weights"] = best
        return state

    def _load(self, name: str) -> dict[str, Any] | None:
        content = self.folder.read(name, self._most)
        return None if content is None else state_from_bytes(content, f"{self.folder}/{name}")

    def finish(
        self, results: FitResult, summary: dict[str, Any], best: dict[str, Any], last: Mapping[str, Any] | None = None
    ) -> None:
        """Save the results, the best weights, and the state after the last epoch if more epochs could follow."""
        self.folder.write("best.pt", state_to_bytes(best))
        if last is not None:
            content = state_to_bytes({key: value for key, value in last.items() if key != "best_weights"})
            self.folder.write(_checkpoint(results.num_epochs), content)
        record = {"config": self._settings.to_json(), "results": results._asdict(), "trial": summary}
        content = to_strict_json(record).encode()
        parse_json(content)  # fails if it cannot be read back, before checkpoints are deleted
        self.folder.write("record.json", content)
        self.forget_training(0 if last is None else results.num_epochs)

    def forget_training(self, epochs: int) -> None:
        """Delete `error.txt`, `stop.txt`, partly written files, and all checkpoints but that of epoch `epochs`."""
        for name in self.folder.names():
            is_older = _CHECKPOINT.fullmatch(name) and name != _checkpoint(epochs)
            if is_older or name in ("error.txt", _STOP) or name.endswith(BESIDE_SUFFIX):
                self.folder.delete(name)

    def copy_from(self, other: "TrialFolder", names: Iterable[str]) -> None:
        """Copy files of another trial in this order, except those that are missing or cannot be read."""
        for name in names:
            content = None
            with contextlib.suppress(ResultError, OSError):
                content = other.folder.read(name, self._most)
            if content is not None:
                self.folder.write(name, content)

    def record(self) -> tuple[FitResult, dict[str, Any]] | None:
        """Results and facts of the finished trial, or None; a ResultError if they are damaged, or of another trial."""
        place = f"{self.folder}/record.json"
        try:
            content = self.folder.read("record.json")
            if content is None:
                return None
            config, results, summary = parse_result(parse_json(content), place)
            recorded_id = parse_settings(config).trial_id
        except (ValueError, ConfigError, ResultError) as error:
            fault = fault_of(error, place)
            raise ResultError(f"{place}: damaged ({fault}); the sweep's command runs the trial again") from error
        if recorded_id != self.trial_id:
            raise ResultError(f"{place}: it is that of trial {recorded_id}; the sweep's command runs the trial again")
        return results, summary

    def whole_record(self) -> tuple[FitResult, dict[str, Any]] | None:
        """As `record`, but None if it is damaged, since the trial will run again."""
        try:
            return self.record()
        except ResultError:
            return None

    def is_finished(self) -> bool:
        """Whether there is an undamaged record."""
        return self.whole_record() is not None

    def stop_after(self, epoch: int) -> None:
        """Save the decision of a scheduler to end the trial after an epoch."""
        self.folder.write(_STOP, str(epoch).encode())

    def is_to_stop(self, epoch: int) -> bool:
        """Whether a scheduler decided to end the trial after this epoch or an earlier one."""
        content = self.folder.read(_STOP)
        return content is not None and content.isdigit() and epoch >= int(content[:9])

    def reopen(self) -> None:
        """Let a trial that a scheduler stopped continue from its last state, unless another process has finished it."""
        if (record := self.whole_record()) is not None and record[1].get("stop_reason") == "scheduler":
            self.folder.delete(_STOP)
            self.folder.delete("record.json")

    def save_failure(self, failure: str, trace: str) -> None:
        """Save why the trial failed: one line, and the traceback."""
        self.folder.write("error.txt", f"{failure}\n\n{trace}".encode())

    def forget_failure(self) -> None:
        """Delete why the trial failed, such as that of an earlier sweep when it starts again."""
        self.folder.delete("error.txt")

    def failure(self) -> str | None:
        """Why the trial failed last, in one line, or None."""
        try:
            content = self.folder.read("error.txt")
        except ResultError as error:
            return str(error)
        return None if content is None else content.decode(errors="replace").partition("\n")[0][:_MOST_CHARACTERS]


def _checkpoint(epoch: int) -> str:
    return f"epoch_{epoch:04d}.pt"


def fault_of(error: Exception, place: str) -> str:
    """What is wrong with a file, in one line."""
    if isinstance(error, ConfigError):
        return "; ".join(error.problems[:3])
    if isinstance(error, ResultError):
        return str(error).removeprefix(f"{place}: ").partition(";")[0]
    if isinstance(error, KeyError | TypeError | AttributeError):
        return "a part is missing, or not what it should be"
    return str(error)
