"""How far each trial is within its epoch: its process publishes it, on whatever machine, and the driver reads it."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from ray.experimental import internal_kv  # the store that Ray itself keeps; an actor for it would be one more process

from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.live_table import EpochProgress
from tune_cnn.sweep.trial_folder import TrialFolder

PUBLISH_S = 2.0
_NAMESPACE = b"tune_cnn"


class CountedBatches:
    """Wraps a DataLoader; every two seconds, `report` gets how many batches it has yielded so far, and their total.

    It does not wait for the GPU.
    """

    def __init__(self, batches: Any, report: Callable[[int, int], object]) -> None:
        self.batches, self.report = batches, report

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        reported = time.monotonic()
        for count, batch in enumerate(self.batches, start=1):
            yield batch
            if time.monotonic() - reported > PUBLISH_S:
                self.report(count, len(self))
                reported = time.monotonic()


def publish(folder: TrialFolder, progress: EpochProgress) -> None:
    """Publish the progress of a trial to the driver; errors are ignored, so that training goes on."""
    with contextlib.suppress(Exception):
        internal_kv._internal_kv_put(str(folder.folder).encode(), json.dumps(progress).encode(), namespace=_NAMESPACE)


def read(folder: Folder) -> EpochProgress | None:
    """What the trial of a folder published last; None: nothing yet."""
    with contextlib.suppress(Exception):
        return EpochProgress(*json.loads(internal_kv._internal_kv_get(str(folder).encode(), namespace=_NAMESPACE)))
    return None
