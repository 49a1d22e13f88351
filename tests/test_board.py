"""`tune-cnn board` on a sweep that runs: what TensorBoard serves over HTTP, and how it looks in a browser."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from PIL import Image

from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.tensorboard import TrialBoard, overview

OPENER = build_opener(ProxyHandler({}))  # no proxy stands between us and our own machine
SIZES = [(8, 2), (8, 4), (16, 2), (16, 4)]
PICTURE = Image.new("RGB", (345, 200), (8, 69, 148))
PATIENCE_S = 30.0  # on a machine that has other things to do


def settings(k: int, depth: int) -> Settings:
    return Settings(seed=1, filters_per_layer=(k,), layers_per_block=depth, data=DataSettings("shapes"))


def result(epoch: int, accuracy: float = 50.0) -> dict[str, Any]:
    return {
        "epoch": epoch, "train_loss": 2.0 / epoch, "validation_loss": 2.25 / epoch, "train_accuracy": accuracy,
        "validation_accuracy": accuracy, "best_validation_accuracy": accuracy, "epoch_duration_s": 0.5,
        "stop_reason": None,
    }  # fmt: skip


class Board:
    """A sweep of four trials, and a TensorBoard that watches it.

    K8_L2 has ended, with pictures; K8_L4 was interrupted after its second epoch; the others run.
    """

    def __init__(self, storage: Path) -> None:
        self.folder = SweepFolder(str(storage), "grid")
        trials = {f"K{k}_L{depth}": settings(k, depth) for k, depth in SIZES}
        self.folder.save_experiments(trials)
        self.runs = {name: self.folder.trial(trial).label for name, trial in trials.items()}
        self.trials = {name: self.trial(trial, overview(trials.values())) for name, trial in trials.items()}
        for epoch in (1, 2):
            for number, trial in enumerate(self.trials.values()):
                ended = {"test_accuracy": 62.5, "pictures": {"test/confusion": PICTURE}, "stop_reason": "plateau"}
                last = ended if number == 0 else {}
                trial.report({**result(epoch, 50.0 + number), **(last if epoch == 2 else {})})
        self.address = ""

    def trial(self, trial: Settings, about: list[Any]) -> TrialBoard:
        return TrialBoard(self.folder.trial(trial), trial, about)

    def get(self, route: str, body: object = None, **query: str) -> bytes:
        request = Request(f"{self.address}data/plugin/{route}?{urlencode(query)}")
        if body is not None:
            request = Request(request.full_url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with OPENER.open(request, timeout=PATIENCE_S) as response:
            return bytes(response.read())

    def ask(self, route: str, body: object = None, **query: str) -> Any:
        return json.loads(self.get(route, body, **query))

    def charts(self) -> dict[str, dict[str, list[str]]]:
        """Category -> chart -> the trials whose curves are in it."""
        layout = self.ask("custom_scalars/layout")
        found: dict[str, dict[str, list[str]]] = {}
        for category in layout["category"]:
            for chart in category["chart"]:
                (tag,) = chart["multiline"]["tag"]
                answers = {
                    name: self.ask("custom_scalars/scalars", run=run, tag=tag)["tag_to_events"]
                    for name, run in self.runs.items()
                }
                found.setdefault(category["title"], {})[chart["title"]] = [n for n, tags in answers.items() if tags]
        return found


def wait_for(is_so: Callable[[], bool]) -> float:
    """How long it takes, in seconds."""
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() - started < PATIENCE_S
        time.sleep(0.1)
    return time.monotonic() - started


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    storage = tmp_path_factory.mktemp("storage")
    board = Board(storage)
    command = [sys.executable, "-m", "tune_cnn", "board", "grid", "--storage", str(storage), "--port", "0"]
    log = storage / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True) as process,
    ):
        try:
            wait_for(lambda: "Press CTRL+C" in log.read_text() or process.poll() is not None)
            address = re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())
            assert address, log.read_text()
            board.address = address[0]
            wait_for(lambda: len(board.ask("scalars/tags")) == len(SIZES))
            yield board
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def test_an_epoch_is_served_soon_after_its_end(board):
    def steps(name: str) -> list[int]:
        curve = board.ask("scalars/scalars", run=board.runs[name], tag="accuracy/validation")
        return [step for _, step, _ in curve]

    assert steps("K16_L2") == [1, 2]
    board.trials["K16_L2"].report(result(3))
    duration_s = wait_for(lambda: steps("K16_L2") == [1, 2, 3])
    assert duration_s < 2 * (1 + os.getloadavg()[0] / (os.cpu_count() or 1))


def test_custom_scalars_compare_depths_at_each_width_and_widths_at_each_depth(board):
    by_width = {"K = 8": ["K8_L2", "K8_L4"], "K = 16": ["K16_L2", "K16_L4"]}
    by_depth = {"L = 2": ["K8_L2", "K16_L2"], "L = 4": ["K8_L4", "K16_L4"]}
    charts = board.charts()
    assert charts == {
        "Depth at fixed width: validation accuracy in %": by_width,
        "Depth at fixed width: training loss in nats": by_width,
        "Width at fixed depth: validation accuracy in %": by_depth,
        "Width at fixed depth: training loss in nats": by_depth,
    }
    assert [list(category) for category in charts.values()] == [list(by_width)] * 2 + [list(by_depth)] * 2


def test_the_table_has_every_trial_with_its_metrics_also_those_that_did_not_end(board):
    metrics = ["accuracy/best_validation", "accuracy/test"]
    request = {
        "startIndex": 0, "sliceSize": 100, "aggregationType": "AGGREGATION_AVG",
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [{"hparam": "K"}, {"hparam": "L"}, *({"metric": {"tag": tag}} for tag in metrics)],
    }  # fmt: skip
    groups = board.ask("hparams/session_groups", request)["sessionGroups"]
    rows = {
        (group["hparams"]["K"], group["hparams"]["L"]): {
            value["name"]["tag"]: value["value"] for value in group["metricValues"]
        }
        for group in groups
    }
    assert rows.keys() == set(SIZES)
    assert [rows[size]["accuracy/best_validation"] for size in [(8, 2), (8, 4), (16, 4)]] == [50, 51, 53]
    assert rows[8, 2]["accuracy/test"] == 62.5
    columns = board.ask("hparams/experiment", {})["hparamInfos"]
    assert [column["name"] for column in columns] == ["K", "L"]


def test_pictures_are_served_as_they_were_drawn(board):
    run = board.runs["K8_L2"]
    assert board.ask("images/tags")[run].keys() == {"test/confusion"}
    (shown,) = board.ask("images/images", run=run, tag="test/confusion", sample="0")
    assert shown["step"] == 2
    with OPENER.open(f"{board.address}data/plugin/images/individualImage?{shown['query']}") as response:
        assert Image.open(io.BytesIO(response.read())).tobytes() == PICTURE.tobytes()


def test_the_layout_grows_with_the_grid(board):
    new = settings(32, 2)
    experiments = {**board.folder.experiments(), "K32_L2": new}
    board.trial(new, overview(experiments.values())).report(result(1))
    board.runs["K32_L2"] = board.folder.trial(new).label
    wait_for(lambda: board.runs["K32_L2"] in board.ask("scalars/tags"))
    charts = board.charts()
    assert charts["Depth at fixed width: validation accuracy in %"].keys() == {"K = 8", "K = 16", "K = 32"}
    assert charts["Width at fixed depth: training loss in nats"]["L = 2"] == ["K8_L2", "K16_L2", "K32_L2"]


def test_a_browser_shows_the_comparisons(board, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    picture = tmp_path / "custom_scalars.png"
    subprocess.run(
        [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-proxy-server",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900", "--virtual-time-budget=15000",
            f"--screenshot={picture}", f"{board.address}?smoothing=0#custom_scalars&_smoothingWeight=0",
        ],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    # The curves of the four trials have the first four of TensorBoard's colours.
    with Image.open(picture) as image:
        charts = image.convert("RGB").crop((360, 130, 1400, 900))
        colours = {colour: count for count, colour in charts.getcolors(charts.width * charts.height)}
    vivid = [colour for colour, count in colours.items() if count > 60 and max(colour) - min(colour) > 100]
    assert len(vivid) >= 4
