"""CIFAR-10 through torchvision, downloaded at the first use."""

import os
import socket
import tarfile
from dataclasses import replace
from http.client import HTTPException
from typing import Any

import numpy as np

from tune_cnn.data.source import Found, ImageSet, Source, absolute, choose
from tune_cnn.errors import DataError
from tune_cnn.settings import DataSettings

DEFAULT_ROOT = "~/.pytorch-datasets"
CLASS_COUNT = 10
IMAGE_COUNTS = (50_000, 10_000)  # for training and testing
# torchvision waits for ever on a network that drops packets.
_TIMEOUT_S = 30.0


class Cifar10(Source):
    """The images that lie in `data.path`, or will after their download."""

    @property
    def root(self) -> str:
        """The folder that holds, or will hold, `cifar-10-batches-py`."""
        return absolute(self.data.path or DEFAULT_ROOT)

    def find(self) -> Found:
        """What CIFAR-10 is known to have."""
        return Found("cifar10", *IMAGE_COUNTS, CLASS_COUNT)

    def resolve(self) -> DataSettings:
        """With an absolute path, if there is one."""
        path = None if self.data.path is None else self.root
        return replace(self.data, path=path, classes=CLASS_COUNT, fingerprint=None)

    def read(self, progress: bool = False, download: bool = True) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
        """Read CIFAR-10, and download it first if it is not there or damaged."""
        # Importing torchvision takes a second, which trials on other images need not wait for.
        from torchvision.datasets import CIFAR10

        try:
            train = CIFAR10(self.root)
        except (OSError, RuntimeError):  # not there, or damaged
            if not download:
                raise DataError(f"CIFAR-10 is not in {self.root} yet") from None
            train = _download(self.root)
        sets = [_image_set(part) for part in (train, CIFAR10(self.root, train=False))]
        chosen = choose(self.data, Found(self.root, sets[0].count, sets[1].count, CLASS_COUNT))
        fitted, tested = (part.take(indices) for part, indices in zip(sets, chosen, strict=True))
        return fitted, tested, tuple(train.classes)


def _download(root: str) -> Any:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        # It checks the archive's sum before it unpacks, so what a broken download leaves is fetched again.
        return CIFAR10(root, download=True)
    except (OSError, RuntimeError, HTTPException, tarfile.TarError, EOFError) as error:
        archive = os.path.join(root, CIFAR10.filename)
        damaged = os.path.exists(archive) and not check_integrity(archive, CIFAR10.tgz_md5)
        hint = f"\n{archive} is incomplete or damaged." if damaged else ""
        raise DataError(
            f"CIFAR-10 is not in {root}, and cannot be downloaded from {CIFAR10.url}: {error}{hint}\n"
            "Ways out:\n"
            f"  get {CIFAR10.filename} elsewhere, put it into {root}, and run the same again\n"
            "  train on a folder of images, as data: image_folder:PATH\n"
            "  train on drawn shapes, which need no network, as data: shapes"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _image_set(dataset: Any) -> ImageSet:
    return ImageSet(np.ascontiguousarray(dataset.data), np.array(dataset.targets, np.int64))
