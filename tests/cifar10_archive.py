"""A small archive in CIFAR-10's format on a server of our own, so that tests download it as users do."""

import hashlib
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torchvision

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]


def _batch(name: str, count: int) -> dict[str, object]:
    """Noise with a bright stretch whose place tells the class, so that training on them gets somewhere."""
    random = np.random.RandomState(BATCHES.index(name))
    labels = np.arange(count) % len(CLASSES)
    data = random.randint(0, 60, (count, 3072))
    for image, label in zip(data, labels, strict=True):
        image[label * 300 : label * 300 + 300] += 190
    names = [f"{name}_{index}.png" for index in range(count)]
    return {"batch_label": name, "labels": labels.tolist(), "data": data.astype(np.uint8), "filenames": names}


class Cifar10Archive:
    """The archive, and the server that offers it.

    Attributes:
        root: Where `torchvision.datasets.CIFAR10` finds it or downloads it to: `~/.pytorch-datasets`.
        url: Where it is offered.
        content: The archive's bytes.
        sent: What the server sends; change it, and the download is damaged.
        requests: How often it was asked for.
    """

    def __init__(self, images_per_batch: int) -> None:
        self.root = Path(os.path.expanduser("~/.pytorch-datasets"))
        self.files = {name: pickle.dumps(_batch(name, images_per_batch), protocol=2) for name in BATCHES}
        self.files["batches.meta"] = pickle.dumps({"label_names": CLASSES}, protocol=2)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            for name, content in self.files.items():
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        self.content = self.sent = archive.getvalue()
        self.requests = 0
        self.url = ""

    def replace_cifar10(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let torchvision's class take this archive for CIFAR-10."""
        md5 = {name: hashlib.md5(content).hexdigest() for name, content in self.files.items()}
        cifar10 = torchvision.datasets.CIFAR10
        monkeypatch.setattr(cifar10, "url", self.url)
        monkeypatch.setattr(cifar10, "tgz_md5", hashlib.md5(self.content).hexdigest())
        monkeypatch.setattr(cifar10, "train_list", [[name, md5[name]] for name in BATCHES[:5]])
        monkeypatch.setattr(cifar10, "test_list", [["test_batch", md5["test_batch"]]])
        meta = {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]}
        monkeypatch.setattr(cifar10, "meta", meta)

    @contextmanager
    def served(self) -> Iterator[None]:
        """Offer the archive at `url` on this machine."""

        def content(_: str) -> bytes:
            self.requests += 1
            return self.sent

        with serving(content) as address:
            self.url = f"{address}/cifar-10-python.tar.gz"
            yield


@contextmanager
def serving(content: Callable[[str], bytes]) -> Iterator[str]:
    """A server on this machine, at the address that is yielded.

    Args:
        content: What it sends for the last part of a path.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = content(self.path.rpartition("/")[2])
            self.send_response(200)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # torchvision hangs up after the headers when it looks for a redirection

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
