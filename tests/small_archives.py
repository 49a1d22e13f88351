"""Small archives in the formats of torchvision's data sets, offered for download on this machine."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import numpy as np
import pytest
import torchvision

TRAIN, TEST = 40, 20  # images


class Archives(NamedTuple):
    """A data set, and the server that offers it."""

    images: list[np.ndarray]  # for training and for testing, each (N, H, W, C)
    labels: list[np.ndarray]  # of these images, each (N,)
    sent: dict[str, bytes]  # contents by file name; change one to damage a download
    requests: list[str]  # the names that were requested


def _draw(height: int, channels: int, classes: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draw noise with a bright stretch whose position depends on the class, so that networks can learn it."""
    random = np.random.RandomState(0)
    images = [random.randint(0, 60, (count, height, height, channels), np.uint8) for count in (TRAIN, TEST)]
    labels = [random.randint(0, classes, count) for count in (TRAIN, TEST)]
    for pixels, label in zip((i.reshape(len(i), -1) for i in images), labels, strict=True):
        width = pixels.shape[1] // classes
        for image, place in zip(pixels, label * width, strict=True):
            image[place : place + width] += 190
    return images, labels


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def _cifar(kind: Any, classes: int, label_key: str, names_key: str) -> Callable[[pytest.MonkeyPatch], object]:
    @contextmanager
    def small(patch: pytest.MonkeyPatch) -> Iterator[Archives]:
        images, labels = _draw(32, 3, classes)
        files = {
            name: pickle.dumps({"data": i.transpose(0, 3, 1, 2).reshape(-1, 3072), label_key: label.tolist()})
            for name, i, label in zip(("train", "test"), images, labels, strict=True)
        }
        files["meta"] = pickle.dumps({names_key: [f"class {index}" for index in range(classes)]})
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(f"{kind.base_folder}/{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        archives = Archives(images, labels, {kind.filename: content.getvalue()}, [])
        patch.setattr(kind, "tgz_md5", _md5(content.getvalue()))
        patch.setattr(kind, "train_list", [["train", _md5(files["train"])]])
        patch.setattr(kind, "test_list", [["test", _md5(files["test"])]])
        patch.setattr(kind, "meta", {"filename": "meta", "key": names_key, "md5": _md5(files["meta"])})
        with _offered(archives) as address:
            patch.setattr(kind, "url", f"{address}/{kind.filename}")
            yield archives

    return small


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
        savemat(content, {"X": i.transpose(1, 2, 3, 0), "y": np.where(label, label, 10)[:, None]})  # class 10 is 0
        sent[f"{part}_32x32.mat"] = content.getvalue()
    archives = Archives(images, labels, sent, [])
    with _offered(archives) as address:
        parts = {name.partition("_")[0]: [f"{address}/{name}", name, _md5(sent[name])] for name in sent}
        patch.setattr(torchvision.datasets.SVHN, "split_list", parts)
        yield archives


@contextmanager
def _offered(archives: Archives) -> Iterator[str]:
    """Serve the archives on this machine; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            archives.requests.append(name)
            self.send_response(200)
            self.send_header("Content-Length", str(len(archives.sent[name])))
            self.end_headers()
            self.wfile.write(archives.sent[name])

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # torchvision hangs up after the headers when it checks for a redirect

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


SMALL = {
    "cifar10": _cifar(torchvision.datasets.CIFAR10, 10, "labels", "label_names"),
    "cifar100": _cifar(torchvision.datasets.CIFAR100, 100, "fine_labels", "fine_label_names"),
    "fashion_mnist": _mnist(torchvision.datasets.FashionMNIST),
    "mnist": _mnist(torchvision.datasets.MNIST),
    "svhn": _svhn,
}
