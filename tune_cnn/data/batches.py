"""Batches of images in memory, whole ones at a time, with the random draws of a plain DataLoader."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from tune_cnn.data.source import ImageSet
from tune_cnn.training import AUTOCAST
from tune_cnn.training.loop import Batch


class _WholeBatches(Dataset[Batch]):
    """An image set that is indexed by a list, one batch at a time."""

    def __init__(self, image_set: ImageSet) -> None:
        self.image_set = image_set

    def __len__(self) -> int:
        return self.image_set.count

    def __getitem__(self, indices: list[int]) -> Batch:
        # NumPy copies rows four times as fast as PyTorch, and the copy may be written to where the images may not.
        images = torch.from_numpy(self.image_set.images[indices])  # (B, H, W, C)
        return images.permute(0, 3, 1, 2), torch.from_numpy(self.image_set.labels[indices])


class _Orders(Dataset[list[int]]):
    """The indices themselves, for images that are gathered elsewhere."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: list[int]) -> list[int]:
        return indices


class _FirstBatches(BatchSampler):
    """The batches of another sampler's indices, up to a number of them."""

    def __init__(self, sampler: RandomSampler | SequentialSampler, batch_size: int, max_batches: int | None) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self.max_batches = max_batches

    def __iter__(self) -> Iterator[list[int]]:
        return itertools.islice(super().__iter__(), self.max_batches)

    def __len__(self) -> int:
        return super().__len__() if self.max_batches is None else min(super().__len__(), self.max_batches)


class Batches(DataLoader[Any]):
    """Batches of images uint8 (B, C, H, W), channels last in memory, and labels int64 (B,); its length is their number.

    Attributes:
        loss_batch_size: Report a loss for every so many images, although more are computed at once; None: per batch.
    """

    def __init__(self, dataset: Dataset[Any], sampler: BatchSampler, loss_batch_size: int | None) -> None:
        super().__init__(dataset, sampler=sampler, batch_size=None, collate_fn=_as_it_is)
        self.loss_batch_size = loss_batch_size


class ResidentBatches(Batches):
    """The same batches with the same random draws, of images that lie on a device: a pass sends it only the order."""

    def __init__(
        self, image_set: ImageSet, sampler: BatchSampler, loss_batch_size: int | None, device: torch.device
    ) -> None:
        super().__init__(_Orders(image_set.count), sampler, loss_batch_size)
        self._images, self._labels = _on_device(image_set, device)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches = list(super().__iter__())
        order = torch.tensor(list(itertools.chain.from_iterable(batches)))
        order = order.to(self._images.device, non_blocking=True)
        for indices in torch.split(order, [len(batch) for batch in batches]):
            images = self._images.index_select(0, indices)  # (B, H, W, C)
            yield images.permute(0, 3, 1, 2), self._labels.index_select(0, indices)


# What lies on a device, and stays there for the next trial of this process: (images, labels) by where they came from.
_resident: dict[tuple[int, torch.device], tuple[ImageSet, Tensor, Tensor]] = {}
_MOST_RESIDENT = 3  # image sets: those of one trial


def _on_device(image_set: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    key = id(image_set.images), device
    if key not in _resident:
        if len(_resident) == _MOST_RESIDENT:
            _resident.clear()
        images, labels = (torch.tensor(part, device=device) for part in image_set)
        _resident[key] = image_set, images, labels  # the set too: while it is there, no other has its id
    return _resident[key][1:]


def fits(nbytes: int, device: torch.device) -> bool:
    """Whether images of so many bytes shall lie on a device: a GPU, which several processes may share."""
    return device.type == "cuda" and nbytes <= torch.cuda.get_device_properties(device).total_memory // 16


def _as_it_is(batch: Any) -> Any:
    return batch


def batches(
    image_set: ImageSet,
    batch_size: int,
    shuffle: bool = False,
    max_batches: int | None = None,
    loss_batch_size: int | None = None,
    device: torch.device | None = None,
) -> Batches:
    """Batches in the order of `DataLoader(dataset, batch_size, shuffle)`, with the same random draws, but faster.

    Args:
        image_set: Which images.
        batch_size: Images in a batch; the last one may have fewer.
        shuffle: Draw a new order for each pass from PyTorch's random state.
        max_batches: End each pass after so many batches.
        loss_batch_size: See `Batches`; `batch_size` is a multiple of it.
        device: Where the images shall lie, and the batches come from; None: in NumPy's arrays.

    Raises:
        ValueError: `batch_size` is not a multiple of `loss_batch_size`.
    """
    if loss_batch_size is not None and batch_size % loss_batch_size:
        raise ValueError(f"batch_size {batch_size} is not a multiple of loss_batch_size {loss_batch_size}")
    dataset = _WholeBatches(image_set)
    sampler = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    batch_sampler = _FirstBatches(sampler, batch_size, max_batches)
    if device is not None:
        return ResidentBatches(image_set, batch_sampler, loss_batch_size, device)
    return Batches(dataset, batch_sampler, loss_batch_size)


def evaluation_batches(
    image_set: ImageSet, loss_batch_size: int, at_least: int, device: torch.device | None = None
) -> Batches:
    """Unshuffled batches whose losses are reported for every `loss_batch_size` images.

    Args:
        image_set: Which images.
        loss_batch_size: Images per reported loss.
        at_least: Compute so many images at once, or some more: enough to keep the device busy, but few enough that
            the maps of features stay in a core's cache.
        device: See `batches`.
    """
    parts = math.ceil(at_least / loss_batch_size)
    return batches(image_set, parts * loss_batch_size, loss_batch_size=loss_batch_size, device=device)


def evaluated_at_once(device: torch.device, precision: str) -> int:
    """Smallest batch size for evaluation: it keeps the device busy, while the activations still fit its cache."""
    if device.type != "cpu":
        return 512
    # Measured at K = 32: in fp32, a batch of 96 is up to 15 % slower than 48; in bf16 and fp16, 48 is up to 9 % slower.
    return 96 if precision in AUTOCAST else 48
