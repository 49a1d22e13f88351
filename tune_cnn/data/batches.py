"""Batches of images in memory, each gathered in one go, with the random draws of a plain DataLoader."""

import math
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tune_cnn.data.source import ImageSet
from tune_cnn.training import AUTOCAST
from tune_cnn.training.loop import Batch


class Batches(DataLoader[Any]):
    """Batches of uint8 images (B, C, H, W), channels-last, and int64 labels (B,); `len` is the number of batches.

    Order and random draws are those of `DataLoader(dataset, batch_size, shuffle)`: such a loader yields the indices,
    and the images are gathered a batch at a time.

    Args:
        image_set: Images and labels.
        batch_size: Images per batch; the last batch may have fewer.
        shuffle: Draw a new order for each pass, from PyTorch's random state.
        max_batches: Largest number of batches per pass; None: all.
        loss_batch_size: Images per reported loss, though a batch may hold several times as many; None: the batch.
        device: Where to keep the images, so that a pass sends only their order there; None: in NumPy's arrays.
    """

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int,
        shuffle: bool = False,
        max_batches: int | None = None,
        loss_batch_size: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(range(image_set.count), batch_size, shuffle, collate_fn=list)  # type: ignore[arg-type]
        self._image_set = image_set
        self._max_batches = max_batches
        self.loss_batch_size = loss_batch_size
        self.resident = None if device is None else _on_device(image_set, device)

    def __len__(self) -> int:
        return super().__len__() if self._max_batches is None else min(super().__len__(), self._max_batches)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        orders = islice(super().__iter__(), self._max_batches)
        if self.resident is None:
            for indices in orders:
                # NumPy copies rows four times as fast as PyTorch, and the copy is writable.
                images, labels = map(torch.from_numpy, self._image_set.take(indices))  # images: (B, H, W, C)
                yield images.permute(0, 3, 1, 2), labels
            return
        all_images, all_labels = self.resident
        order = torch.tensor(list(chain.from_iterable(orders))).to(all_images.device, non_blocking=True)
        for part in torch.split(order, self.batch_size or 1):
            yield all_images.index_select(0, part).permute(0, 3, 1, 2), all_labels.index_select(0, part)


# Image sets kept on a device for this process's next trials: (set, images, labels) by id of the images, and device.
_resident: dict[tuple[int, torch.device], tuple[ImageSet, Tensor, Tensor]] = {}
RESIDENT_PART = 16  # images may take 1/16 of a GPU's memory
_MOST_RESIDENT = 3  # image sets, as many as a trial has


def _on_device(image_set: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    key = id(image_set.images), device
    if key not in _resident:
        if len(_resident) == _MOST_RESIDENT:
            _resident.clear()
        images, labels = (torch.tensor(part, device=device) for part in image_set)
        _resident[key] = image_set, images, labels  # a reference to the set keeps its id unique
    return _resident[key][1:]


def fits(nbytes: int, device: torch.device) -> bool:
    """Whether to keep images of `nbytes` on a device: only on a GPU, which several processes may share."""
    return device.type == "cuda" and nbytes <= torch.cuda.get_device_properties(device).total_memory // RESIDENT_PART


def evaluation_batches(
    image_set: ImageSet, loss_batch_size: int, at_least: int, device: torch.device | None = None
) -> Batches:
    """Make unshuffled batches of at least `at_least` images that report a loss per `loss_batch_size` images."""
    parts = math.ceil(at_least / loss_batch_size)
    return Batches(image_set, parts * loss_batch_size, loss_batch_size=loss_batch_size, device=device)


def evaluated_at_once(device: torch.device, precision: str) -> int:
    """Smallest batch size for evaluation: it keeps the device busy, while the activations still fit its cache."""
    if device.type != "cpu":
        return 512
    # Measured at K = 32: in fp32, a batch of 96 is up to 15 % slower than 48; in bf16 and fp16, 48 is up to 9 % slower.
    return 96 if precision in AUTOCAST else 48
