"""torchvision's data sets, downloaded at the first use."""

import importlib.util
import os
import socket
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tune_cnn.data.source import Found, ImageSet, Source, choose
from tune_cnn.errors import DataError

# torchvision waits for ever on a network that drops packets.
_TIMEOUT_S = 30.0


class Cifar10(Source):
    """The images that lie in `data.path`, or will after their download.

    Attributes:
        dataset: Name of torchvision's class.
        counts: Images for training and testing, and classes.
        names: Those of the classes; None: as torchvision has them.
    """

    default_path = "~/.pytorch-datasets"
    dataset: ClassVar = "CIFAR10"
    counts: ClassVar = (50_000, 10_000, 10)
    names: ClassVar[tuple[str, ...] | None] = None

    def inspect(self) -> Found:
        """What the data set is known to have."""
        return Found(self.data.source, *self.counts)

    def read(self, progress: bool = False, download: bool = True) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
        """Read the images, and download them first if they are not there or damaged."""
        try:
            opened = [self._open(train) for train in (True, False)]
        except Exception:  # not there, or damaged, which each class tells in another way
            if not download:
                raise DataError(f"{self.dataset} is not in {self.path} yet") from None
            opened = self._download()
        train, test = map(self._image_set, opened)
        chosen = choose(self.data, Found(self.path, train.count, test.count, self.counts[2]))
        return train.take(chosen[0]), test.take(chosen[1]), self.names or tuple(opened[0].classes)

    def _open(self, train: bool, download: bool = False) -> Any:
        return self._torchvision()(self.path, train=train, download=download)

    def _torchvision(self) -> Any:
        # Importing torchvision takes a second, which trials on other images need not wait for.
        from torchvision import datasets

        return getattr(datasets, self.dataset)

    def _download(self) -> list[Any]:
        from torchvision.datasets.utils import check_integrity

        archives = self._archives()
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_TIMEOUT_S)
        try:
            for _, path, _ in archives:
                if path.endswith(".gz"):  # torchvision would take damaged files of MNIST for whole
                    Path(path.removesuffix(".gz")).unlink(missing_ok=True)
            # It checks the archives' sums before it unpacks, so what a broken download leaves is fetched again.
            return [self._open(train, download=True) for train in (True, False)]
        except Exception as error:
            damaged = [path for _, path, md5 in archives if os.path.exists(path) and not check_integrity(path, md5)]
            hint = "".join(f"\n{path} is incomplete or damaged." for path in damaged)
            names = ", ".join(os.path.basename(path) for _, path, _ in archives)
            raise DataError(
                f"{self.dataset} is not in {self.path}, and cannot be downloaded from {archives[0][0]}: {error}{hint}\n"
                "Ways out:\n"
                f"  get {names} elsewhere, put it into {os.path.dirname(archives[0][1])}, and run the same again\n"
                "  train on a folder of images, as data: image_folder:PATH\n"
                "  train on drawn shapes, which need no network, as data: shapes"
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)

    def _archives(self) -> list[tuple[str, str, str]]:
        """Where each archive is offered, where it is put, and its MD5 sum."""
        kind = self._torchvision()
        return [(kind.url, os.path.join(self.path, kind.filename), kind.tgz_md5)]

    def _image_set(self, dataset: Any) -> ImageSet:
        images = np.ascontiguousarray(dataset.data)
        return ImageSet(images if images.ndim == 4 else images[..., None], np.asarray(dataset.targets, np.int64))


class Cifar100(Cifar10):
    """As CIFAR-10, with the 100 fine classes."""

    dataset = "CIFAR100"
    counts = (50_000, 10_000, 100)


class FashionMnist(Cifar10):
    """Grey images of clothes."""

    dataset = "FashionMNIST"
    counts = (60_000, 10_000, 10)

    def _archives(self) -> list[tuple[str, str, str]]:
        kind = self._torchvision()
        folder = os.path.join(self.path, self.dataset, "raw")
        return [(kind.mirrors[0] + name, os.path.join(folder, name), md5) for name, md5 in kind.resources]


class Mnist(FashionMnist):
    """Grey images of written digits."""

    dataset = "MNIST"
    names = tuple("0123456789")


class Svhn(Cifar10):
    """Digits of house numbers; torchvision reads them with SciPy."""

    dataset = "SVHN"
    counts = (73_257, 26_032, 10)
    names = tuple("0123456789")

    def read(self, progress: bool = False, download: bool = True) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
        """As for the others, once SciPy is there."""
        if importlib.util.find_spec("scipy") is None:
            raise DataError("data: svhn is read with SciPy, which is not installed; pip install scipy")
        return super().read(progress, download)

    def _open(self, train: bool, download: bool = False) -> Any:
        return self._torchvision()(self.path, "train" if train else "test", download=download)

    def _archives(self) -> list[tuple[str, str, str]]:
        files = self._torchvision().split_list
        return [(url, os.path.join(self.path, name), md5) for url, name, md5 in (files["train"], files["test"])]

    def _image_set(self, dataset: Any) -> ImageSet:
        return ImageSet(np.ascontiguousarray(dataset.data.transpose(0, 2, 3, 1)), dataset.labels)
