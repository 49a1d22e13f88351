"""torchvision's data sets, downloaded on first use."""

import importlib.util
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tune_cnn.data.source import Found, ImageSet, Source, choose
from tune_cnn.errors import DataError

_TIMEOUT_S = 30.0  # torchvision waits forever on a network that drops packets


class _Dataset(NamedTuple):
    """A data set of torchvision: its class, and its numbers of training images, test images and classes."""

    name: str
    train: int
    test: int
    classes: int


DATASETS = {
    "cifar10": _Dataset("CIFAR10", 50_000, 10_000, 10),
    "cifar100": _Dataset("CIFAR100", 50_000, 10_000, 100),
    "fashion_mnist": _Dataset("FashionMNIST", 60_000, 10_000, 10),
    "mnist": _Dataset("MNIST", 60_000, 10_000, 10),
    "svhn": _Dataset("SVHN", 73_257, 26_032, 10),
}


class Download(Source):
    """Images of a torchvision data set in `data.path`, downloaded to it if missing."""

    default_path = "~/.pytorch-datasets"

    def inspect(self) -> Found:
        """Known size of the data set."""
        return Found(self.data.source, *DATASETS[self.data.source][1:4])

    def read(self, progress: bool = False, download: bool = True) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
        """Read the images; download them first if they are missing or damaged."""
        dataset = DATASETS[self.data.source]
        if dataset.name == "SVHN" and importlib.util.find_spec("scipy") is None:
            raise DataError("data: svhn is read with SciPy, which is not installed; pip install scipy")
        try:
            from torchvision import datasets  # takes a second, which other images do not need
        except Exception as error:  # one built for another PyTorch may raise anything
            raise DataError(
                f"data: {self.data.source} is read with torchvision, which does not fit this PyTorch ({error}); "
                "install torch and torchvision again, in one command, as PyTorch's install page says"
            ) from error
        kind = getattr(datasets, dataset.name)
        try:
            opened = self._open(kind)
        except Exception:  # missing or damaged: each class raises another error
            if not download:
                raise DataError(f"{dataset.name} is not in {self.path} yet") from None
            opened = self._download(kind)
        train, test = map(_image_set, opened)
        chosen = choose(self.data, Found(self.path, train.count, test.count, dataset.classes))
        names = "0123456789" if dataset.name in ("MNIST", "SVHN") else opened[0].classes
        return train.take(chosen[0]), test.take(chosen[1]), tuple(names)

    def _open(self, kind: Any, download: bool = False) -> list[Any]:
        parts = ("train", "test") if kind.__name__ == "SVHN" else (True, False)
        return [kind(self.path, part, download=download) for part in parts]

    def _download(self, kind: Any) -> list[Any]:
        archives = _archives(kind, self.path)
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_TIMEOUT_S)
        try:
            for _, path in archives:
                if path.endswith(".gz"):  # torchvision would accept damaged files of MNIST
                    Path(path.removesuffix(".gz")).unlink(missing_ok=True)
            # It verifies the archives' checksums before it unpacks, so a partial download is fetched again.
            return self._open(kind, download=True)
        except Exception as error:
            names = ", ".join(os.path.basename(path) for _, path in archives)
            raise DataError(
                f"{kind.__name__} is not in {self.path}, and cannot be downloaded from {archives[0][0]}: {error}\n"
                "Ways out:\n"
                f"  get {names} elsewhere, put it into {os.path.dirname(archives[0][1])}, and run the same again\n"
                f"  name the folder that has it, as data: {self.data.source}:FOLDER\n"
                "  train on a folder of images, as data: image_folder:PATH\n"
                "  train on drawn shapes, which need no network, as data: shapes"
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)


def _archives(kind: Any, folder: str) -> list[tuple[str, str]]:
    """URL and local path of each archive."""
    if kind.__name__ == "SVHN":
        offered = [kind.split_list[part][:2] for part in ("train", "test")]
    elif kind.__name__.endswith("MNIST"):
        folder = os.path.join(folder, kind.__name__, "raw")
        offered = [(kind.mirrors[0] + name, name) for name, _ in kind.resources]
    else:
        offered = [(kind.url, kind.filename)]
    return [(url, os.path.join(folder, name)) for url, name in offered]


def _image_set(dataset: Any) -> ImageSet:
    if type(dataset).__name__ == "SVHN":  # (N, C, H, W)
        return ImageSet(np.ascontiguousarray(dataset.data.transpose(0, 2, 3, 1)), dataset.labels)
    images = np.ascontiguousarray(dataset.data)
    return ImageSet(images if images.ndim == 4 else images[..., None], np.asarray(dataset.targets, np.int64))
