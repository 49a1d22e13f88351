"""Event files for TensorBoard: scalars after every epoch, hyperparameters from the start, pictures at the end."""

import io
import os
import socket
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import custom_scalars, hparams, image, scalar

from tune_cnn import models
from tune_cnn.errors import NetworkError
from tune_cnn.settings import Settings
from tune_cnn.sweep.trial_folder import TrialFolder
from tune_cnn.texts import setting_text

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
# A custom scalars chart shows every trial that has its tag, so each chart has a tag that only its trials write.
# Title of the category, setting that is fixed in each chart, prefix of the tags, key of the result.
_COMPARISONS = (
    ("Depth at fixed width: validation accuracy in %", "K", "accuracy_by_depth", "validation_accuracy"),
    ("Depth at fixed width: training loss in nats", "K", "loss_by_depth", "train_loss"),
    ("Width at fixed depth: validation accuracy in %", "L", "accuracy_by_width", "validation_accuracy"),
    ("Width at fixed depth: training loss in nats", "L", "loss_by_width", "train_loss"),
)
# Titles of the metrics in the hyperparameter table, by tag.
_METRICS = {
    "accuracy/best_validation": "best val acc %",
    "accuracy/test": "test acc %",
    "loss/validation": "last val loss",
}


def overview(trials: Collection[Settings]) -> list[Summary]:
    """What TensorBoard shows of the whole sweep: the hyperparameter table, and the layout of the custom scalars.

    The table has K, L and the other settings that differ between the trials. The layout has a chart of all depths for
    each width, and one of all widths for each depth. Each trial writes both, so that the grid may grow: TensorBoard
    merges the layouts.
    """
    tables = [_hyperparameters(settings) for settings in trials]
    columns = []
    for name in dict.fromkeys(name for table in tables for name in table):
        values = {table.get(name) for table in tables}
        if len(values) == 1 and name not in ("K", "L"):
            continue
        is_text = any(isinstance(value, str) for value in values)
        data_type = api_pb2.DATA_TYPE_STRING if is_text else api_pb2.DATA_TYPE_FLOAT64
        columns.append(api_pb2.HParamInfo(name=name, type=data_type, differs=len(values) > 1))
    metrics = [api_pb2.MetricInfo(name={"tag": tag}, display_name=title) for tag, title in _METRICS.items()]
    table = plugin_data_pb2.HParamsPluginData(experiment=api_pb2.Experiment(hparam_infos=columns, metric_infos=metrics))
    table_value = Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=metadata.create_summary_metadata(table))

    by_size = sorted(trials, key=lambda settings: (settings.filters_per_layer, settings.layers_per_block))
    widths = [found for settings in by_size if (found := _sizes(settings))]
    if not widths:
        return [Summary(value=[table_value])]
    sizes = {"K": widths, "L": sorted(widths, key=lambda size: size["L"])}
    charts = {}
    for category, fixed, group, _ in _COMPARISONS:
        numbers = [size[fixed] for size in sizes[fixed]]
        charts[category] = {f"{fixed} = {n}": ["Multiline", [f"{group}/{fixed}{n}$"]] for n in numbers}
    return [Summary(value=[table_value]), custom_scalars(charts)]


class TrialBoard:
    """Writes the events of one trial into its folder, from its process; TensorBoard sees them at once."""

    def __init__(self, folder: TrialFolder, settings: Settings, overview: Iterable[Summary]) -> None:
        self._folder = folder.folder
        self._name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._uploaded = b""
        sizes = _sizes(settings)
        compared = {f"{group}/{fixed}{sizes[fixed]}": key for _, fixed, group, key in _COMPARISONS if sizes}
        self._keys = {**SCALARS, **compared}
        _, session, self._end = hparams(_hyperparameters(settings), {})
        self._append([Event(file_version="brain.Event:2"), *(Event(summary=s) for s in (*overview, session))])

    def report(self, result: Mapping[str, Any]) -> None:
        """Write one epoch, and the end of the trial if the result has a `stop_reason`.

        The first result carries the `earlier_epochs`, which replace what a previous process wrote: it may have died
        between the events of an epoch and its checkpoint.
        """
        events = []
        earlier = result.get("earlier_epochs")
        if earlier is not None:
            events.append(Event(session_log=SessionLog(status=SessionLog.START), step=1))
        for epoch in (*(earlier or ()), result):
            known = {tag: epoch[key] for tag, key in self._keys.items() if epoch.get(key) is not None}
            events += [Event(summary=scalar(tag, value), step=epoch["epoch"]) for tag, value in known.items()]
        for tag, picture in result.get("pictures", {}).items():
            events.append(Event(summary=image(tag, np.asarray(picture), dataformats="HWC"), step=result["epoch"]))
        if result["stop_reason"] is not None:
            events.append(Event(summary=self._end))
        self._append(events)

    def _append(self, events: Iterable[Event]) -> None:
        # In one write; SummaryWriter would keep a file and a thread, which dies with a traceback when the disk is full.
        content = io.BytesIO()
        records = RecordWriter(content)
        for event in events:
            event.wall_time = time.time()
            records.write(event.SerializeToString())
        if self._folder.is_local:
            self._folder.local_path.mkdir(parents=True, exist_ok=True)
            with (self._folder.local_path / self._name).open("ab") as file:
                file.write(content.getvalue())
        else:  # S3 cannot append
            self._uploaded += content.getvalue()
            self._folder.write(self._name, self._uploaded)


def _unused(settings: Settings) -> set[str]:
    """Settings that a custom network does not take; empty if its source has changed."""
    with suppress(NetworkError):
        return models.unused_keys(settings) if settings.model else set()
    return set()


def _sizes(settings: Settings) -> dict[str, str | int]:
    """K and L, which the grid varies; nothing for a network that has neither."""
    if "layers_per_block" in _unused(settings):
        return {}
    return {"K": setting_text(settings.filters_per_layer), "L": settings.layers_per_block}


def _hyperparameters(settings: Settings) -> dict[str, str | float | bool]:
    """The hyperparameters of a trial. In all trials, a name has values of one type, as TensorBoard expects, or none."""
    values, unused = settings.flat(), _unused(settings)
    del values["filters_per_layer"], values["layers_per_block"]
    widths = settings.filters_per_layer
    blocks = {"K of the blocks": setting_text(widths), "conv_layers": len(settings.filters)}
    sizes: dict[str, Any] = {**({"K": widths[0]} if len(widths) == 1 else blocks), "L": settings.layers_per_block}
    return {
        **(sizes if _sizes(settings) else {}),
        "data": values["data.source"],
        **{
            key: str(value) if isinstance(value, list) else value
            for key, value in values.items()
            if value is not None and not key.startswith("data.") and key not in unused
        },
    }
