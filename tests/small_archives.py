"""Small archives in the formats of torchvision's other data sets, offered on this machine."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pytest
import torchvision
from cifar10_archive import serving

TRAIN, TEST = 40, 20  # images


class Archives(NamedTuple):
    """Attributes:
    images: Those for training and testing, (N, H, W, C).
    labels: Theirs.
    sent: What is sent, by file name; change it, and a download is damaged.
    requests: The names that were asked for.
    """

    images: list[np.ndarray]
    labels: list[np.ndarray]
    sent: dict[str, bytes]
    requests: list[str]


def _draw(height: int, channels: int, classes: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.RandomState(0)
    images = [random.randint(0, 256, (count, height, height, channels), np.uint8) for count in (TRAIN, TEST)]
    return images, [random.randint(0, classes, count) for count in (TRAIN, TEST)]


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@contextmanager
def _cifar100(patch: pytest.MonkeyPatch) -> Iterator[Archives]:
    images, labels = _draw(32, 3, 100)
    files = {
        name: pickle.dumps({"data": i.transpose(0, 3, 1, 2).reshape(-1, 3072), "fine_labels": label.tolist()})
        for name, i, label in zip(("train", "test"), images, labels, strict=True)
    }
    files["meta"] = pickle.dumps({"fine_label_names": [f"fine {index}" for index in range(100)]})
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    archives = Archives(images, labels, {"cifar-100-python.tar.gz": content.getvalue()}, [])
    kind = torchvision.datasets.CIFAR100
    patch.setattr(kind, "tgz_md5", _md5(content.getvalue()))
    patch.setattr(kind, "train_list", [["train", _md5(files["train"])]])
    patch.setattr(kind, "test_list", [["test", _md5(files["test"])]])
    patch.setattr(kind, "meta", {"filename": "meta", "key": "fine_label_names", "md5": _md5(files["meta"])})
    with _offered(archives) as address:
        patch.setattr(kind, "url", f"{address}/cifar-100-python.tar.gz")
        yield archives


def _idx(values: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes())


def _mnist(kind: type) -> Callable[[pytest.MonkeyPatch], object]:
    @contextmanager
    def small(patch: pytest.MonkeyPatch) -> Iterator[Archives]:
        images, labels = _draw(28, 1, 10)
        sent = {}
        for part, i, label in zip(("train", "t10k"), images, labels, strict=True):
            sent[f"{part}-images-idx3-ubyte.gz"] = _idx(i[..., 0])
            sent[f"{part}-labels-idx1-ubyte.gz"] = _idx(label)
        archives = Archives(images, labels, sent, [])
        patch.setattr(kind, "resources", [(name, _md5(content)) for name, content in sent.items()])
        with _offered(archives) as address:
            patch.setattr(kind, "mirrors", [f"{address}/"])
            yield archives

    return small


@contextmanager
def _svhn(patch: pytest.MonkeyPatch) -> Iterator[Archives]:
    savemat = pytest.importorskip("scipy.io").savemat
    images, labels = _draw(32, 3, 10)
    sent = {}
    for part, i, label in zip(("train", "test"), images, labels, strict=True):
        content = io.BytesIO()
        savemat(content, {"X": i.transpose(1, 2, 3, 0), "y": np.where(label, label, 10)[:, None]})  # a 0 is class 10
        sent[f"{part}_32x32.mat"] = content.getvalue()
    archives = Archives(images, labels, sent, [])
    with _offered(archives) as address:
        parts = {name.partition("_")[0]: [f"{address}/{name}", name, _md5(sent[name])] for name in sent}
        patch.setattr(torchvision.datasets.SVHN, "split_list", parts)
        yield archives


@contextmanager
def _offered(archives: Archives) -> Iterator[str]:
    def content(name: str) -> bytes:
        archives.requests.append(name)
        return archives.sent[name]

    with serving(content) as address:
        yield address


SMALL = {
    "cifar100": _cifar100,
    "fashion_mnist": _mnist(torchvision.datasets.FashionMNIST),
    "mnist": _mnist(torchvision.datasets.MNIST),
    "svhn": _svhn,
}
