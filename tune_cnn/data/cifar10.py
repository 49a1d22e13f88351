"""CIFAR-10 through torchvision, downloaded at the first use."""

import os
import socket
import tarfile
from http.client import HTTPException
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tune_cnn.errors import DataError

DEFAULT_ROOT = "~/.pytorch-datasets"
CLASS_COUNT = 10
IMAGE_COUNTS = (50_000, 10_000)  # for training and testing
# torchvision waits for ever on a network that drops packets.
_TIMEOUT_S = 30.0


class Cifar10(NamedTuple):
    """CIFAR-10's images (N, 32, 32, 3) and labels (N,), in the order of its files."""

    train: tuple[NDArray[np.uint8], NDArray[np.int64]]
    test: tuple[NDArray[np.uint8], NDArray[np.int64]]
    classes: tuple[str, ...]


def read(root: str, download: bool = True) -> Cifar10:
    """Read CIFAR-10, and download it first if it is not there or damaged.

    Args:
        root: The folder that holds, or will hold, `cifar-10-batches-py`.
        download: Whether it may be downloaded.

    Raises:
        DataError: It is not there and cannot, or must not, be downloaded.
    """
    # Importing torchvision takes a second, which trials on other images need not wait for.
    from torchvision.datasets import CIFAR10

    try:
        train = CIFAR10(root)
    except (OSError, RuntimeError):  # not there, or damaged
        if not download:
            raise DataError(f"CIFAR-10 is not in {root} yet") from None
        train = _download(root)
    test = CIFAR10(root, train=False)
    return Cifar10(_arrays(train), _arrays(test), tuple(train.classes))


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


def _arrays(dataset: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.ascontiguousarray(dataset.data), np.array(dataset.targets, np.int64)
