"""A real Jupyter kernel: the assignment's cells, a sweep with its report, and the kernel's interrupt."""

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of Jupyter itself
]

CONFIGS = Path(__file__).parent.parent / "configs"
ASSIGNMENT = [
    """
    from tune_cnn import models
    from tune_cnn.experiments import load_experiment, run_experiment
    from tune_cnn.plot import plot_fit
    """,
    """
    run_experiment(
        "test_run", seed=42, bs_train=20, batches=5, epochs=2, early_stopping=5, filters_per_layer=[4],
        layers_per_block=1, pool_every=1, hidden_dims=[10],
        data={"source": "shapes", "in_size": [3, 12, 12], "train_images": 120, "test_images": 40},
    )
    """,
    """
    config, fit_res = load_experiment("results/test_run.json")
    fig, axes = plot_fit(fit_res)
    """,
]
SWEEP = """
    import tune_cnn
    small = {"epochs": 200, "data.train_images": 200, "data.test_images": 40, "grid.layers_per_block": [2]}
    longer = {"early_stopping": 100, "grid.filters_per_layer": [[8]]}  # not over before it is interrupted
    sweep = tune_cnn.sweep("quick", settings={**small, **longer})
    """

ASK_TENSORBOARD = """
    import os, signal, time
    from urllib.request import urlopen
    from tensorboard.manager import get_all
    (board_process,) = get_all()
    for _ in range(60):
        tags = urlopen(f"http://127.0.0.1:{board_process.port}/data/plugin/scalars/tags").read().decode()
        if tags.count("accuracy/validation") == 6:
            break
        time.sleep(0.5)
    os.kill(board_process.pid, signal.SIGTERM)
    print(tags)
    """


def dedented(source: str) -> str:
    return "\n".join(line[4:] for line in source.strip("\n").splitlines())


def text_of(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def shown(cell: Any, kind: str) -> list[str]:
    return [output["data"][kind] for output in cell.outputs if kind in output.get("data", {})]


def test_the_cells_of_the_assignment(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(dedented(source)) for source in ASSIGNMENT])
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    _, run, plot = notebook.cells
    assert re.search(r"train_batch \(Avg. Loss \d.\d{3}, Accuracy \d+.\d\)", text_of(run))
    assert "Test Accuracy:" in text_of(run)
    assert (tmp_path / "results" / "test_run.json").exists()
    (picture,) = shown(plot, "image/png")
    assert len(picture) > 10_000


def test_the_shipped_notebook_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # for TensorBoard
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where TensorBoard would find those that other runs left
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # paths of sockets must be short
    notebook = nbformat.read(CONFIGS / "grid.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    notebook.cells.append(nbformat.v4.new_code_cell(dedented(ASK_TENSORBOARD)))
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    board, sweep, results, report, model, tags = [cell for cell in notebook.cells if cell.cell_type == "code"][1:]
    assert "6 trials: 0 done, 0 to continue, 6 new" in text_of(sweep)
    assert "epoch 4/4" in text_of(sweep)
    assert "\x1b" not in text_of(sweep)
    assert "report: results/quick_report.html" in text_of(sweep)
    assert "iframe" in shown(board, "text/html")[0]
    assert text_of(tags).count("accuracy/validation") == 6
    assert "quick_K16_L8" in shown(results, "text/html")[0]
    assert "Report: quick" in shown(report, "text/html")[0]
    assert shown(model, "text/plain")[0].count(",") == 9  # ten classes


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Any]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=120)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_an_interrupted_cell_leaves_a_sweep_that_resumes(kernel: Any) -> None:
    manager, client = kernel

    def run(source: str, interrupt_after: str = "") -> tuple[str, dict[str, Any]]:
        """What a cell printed, and the kernel's reply."""
        request = client.execute(dedented(source))
        printed, ended = "", time.monotonic() + 300
        while time.monotonic() < ended:
            message = client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") != request:
                continue
            printed += message["content"].get("text", "")
            if interrupt_after and re.search(interrupt_after, printed):
                manager.interrupt_kernel()
                interrupt_after = ""
            if message["content"].get("execution_state") == "idle":
                break
        return printed, client.get_shell_msg(timeout=60)["content"]

    printed, reply = run(SWEEP, interrupt_after=" epoch 2/200 ")
    assert reply["status"] == "error", printed
    assert reply["ename"] == "KeyboardInterrupt"
    printed, reply = run(SWEEP)
    assert reply["status"] == "ok", reply
    assert "1 to continue" in printed
    assert not re.search(r" epoch 1/200 ", printed)
