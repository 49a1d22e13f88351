"""Event files for TensorBoard: scalars after every epoch, and hyperparameters from the start."""

import io
import os
import socket
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams, scalar

from tune_cnn.settings import Settings
from tune_cnn.sweep.storage import TrialFolder

# Tag -> key of the trainable's result.
SCALARS = {
    "loss/train": "train_loss",
    "loss/validation": "validation_loss",
    "accuracy/train": "train_accuracy",
    "accuracy/validation": "validation_accuracy",
    "accuracy/best_validation": "best_validation_accuracy",
    "accuracy/test": "test_accuracy",
    "time/epoch_s": "epoch_duration_s",
}
_HPARAM_METRICS = ("accuracy/best_validation", "accuracy/test", "loss/validation")


class TrialBoard:
    """Writes the events of one trial into its folder; TensorBoard sees each epoch at once.

    On remote storage the events are collected on this machine, and uploaded when the trial ends.
    """

    def __init__(self, folder: TrialFolder, settings: Settings) -> None:
        self._folder = folder.folder
        self._staging = None if self._folder.is_local else tempfile.TemporaryDirectory(prefix="tune_cnn-events-")
        self._path = Path(self._staging.name) if self._staging else self._folder.local_path
        self._path.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = self._path / name
        start, session, self._end = hparams(_hyperparameters(settings), dict.fromkeys(_HPARAM_METRICS, 0.0))
        self._append([Event(file_version="brain.Event:2"), Event(summary=start), Event(summary=session)])

    def report(self, result: Mapping[str, Any]) -> None:
        """Write one epoch, and those before it that the result brings along, in place of what was written of them."""
        events = []
        earlier = result.get("earlier_epochs", [])
        if earlier:
            events.append(Event(session_log=SessionLog(status=SessionLog.START), step=1))
        for epoch in (*earlier, result):
            for tag, key in SCALARS.items():
                if epoch.get(key) is not None:
                    events.append(Event(summary=scalar(tag, epoch[key]), step=epoch["epoch"]))
        self._append(events)

    def close(self, finished: bool = True) -> None:
        """End the events; what comes later is another file.

        Args:
            finished: The trial succeeded; otherwise TensorBoard goes on to show it as running.
        """
        if finished:
            self._append([Event(summary=self._end)])
        if self._staging is not None:
            for file in self._path.iterdir():
                self._folder.write(file.name, file.read_bytes())
            self._staging.cleanup()

    def _append(self, events: Iterable[Event]) -> None:
        # In one go, where SummaryWriter keeps a file and a thread, which on a full disk dies with a traceback.
        content = io.BytesIO()
        records = RecordWriter(content)
        for event in events:
            event.wall_time = time.time()
            records.write(event.SerializeToString())
        with self._file.open("ab") as file:
            file.write(content.getvalue())


def _hyperparameters(settings: Settings) -> dict[str, Any]:
    """What distinguishes trials, as the values that TensorBoard takes."""
    values = settings.to_json()
    data = values.pop("data")
    return {
        "K": "-".join(map(str, values.pop("filters_per_layer"))),
        "L": values.pop("layers_per_block"),
        "conv_layers": len(settings.filters),
        "data": data["source"],
        **{key: str(value) if value is None or isinstance(value, list) else value for key, value in values.items()},
    }
