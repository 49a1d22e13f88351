"""Environment and fixtures of all tests, and small image sources; none needs a network connection."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_archives import SMALL, Archives

# Ray reads these when the first test imports it; sweeps in processes of their own generate their own tokens.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = "0123456789abcdef0123456789abcdef"
os.environ["TUNE_CNN_CHECKPOINT_S"] = "0"  # after every epoch, since the tests' epochs are short
# At 15, Ray's default, a trial on a busy machine takes minutes to start.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's spelling


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need a GPU if there is none."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Use one thread, the fastest for small tensors: several wait for one another, for long on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Postpone reminders of waiting, which would appear among a command's messages on a busy machine."""
    monkeypatch.setattr("tune_cnn.waiting.REMIND_S", 600.0)


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without data sets, caches or settings."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return home


@pytest.fixture
def small_archives(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Archives]]:
    """`small_archives("mnist")` offers a small data set of that source, in its real format, for download.

    The home folder is a temporary one, still without `~/.pytorch-datasets`.
    """
    # Downloads come from this machine, so they bypass any proxy.
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ExitStack() as stack:
        yield lambda source: stack.enter_context(SMALL[source](monkeypatch))


@pytest.fixture
def image_folder(empty_home: Path, tmp_path: Path) -> Path:
    """A folder of PNG files in three classes, of plain colours and different sizes; 8 to train, 2 to test per class."""
    colours = {"blue": (0, 0, 250), "green": (0, 240, 0), "red": (230, 0, 0)}
    root = tmp_path / "colours"
    for split, count in (("train", 8), ("test", 2)):
        for label, colour in colours.items():
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.full((10 + index, 12, 3), colour, np.uint8)
                pixels[..., colour.index(0)] = index  # identifies the image within its class
                Image.fromarray(pixels).save(folder / f"{index:03}.png")
    return root
