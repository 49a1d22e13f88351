"""Figures from result files."""

import glob
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.cbook import is_math_text
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tune_cnn.errors import StorageError
from tune_cnn.plot import plot_exp_results, plot_fit
from tune_cnn.report.figure_files import write_figures
from tune_cnn.texts import printable
from tune_cnn.train_results import FitResult

LEARNED = [38.0, 52.0, 61.0, 63.1, 62.5]
FLAT = [10.1, 9.9, 10.0, 9.8, 10.0]


@pytest.fixture(autouse=True)
def no_screen() -> Iterator[None]:
    with matplotlib.rc_context():
        matplotlib.use("agg")
        yield
        pyplot.close("all")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    savefig = Figure.savefig

    def save_and_keep(self: Figure, *args: Any, **options: Any) -> None:
        figures.append(self)
        savefig(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", save_and_keep)
    return figures


def history(accuracies: list[float], train_batches: int = 20, validation_batches: int = 6) -> FitResult:
    epochs = len(accuracies)
    return FitResult(
        epochs,
        [2.3 - 0.01 * i for i in range(epochs * train_batches)],
        [accuracy + 1 for accuracy in accuracies],
        [2.3 - 0.02 * i for i in range(epochs * validation_batches)],
        accuracies,
    )


def write_result(
    folder: Path,
    name: str,
    accuracies: list[float] = LEARNED,
    classes: int = 10,
    results: Mapping[str, list[float | None]] = {},
    **config: Any,
) -> Path:
    content = {
        "config": {"run_name": name, "seed": 42, **config},
        "results": {**history(accuracies)._asdict(), **results},
        "trial": {"data": {"source": "shapes", "classes": classes}},
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def legend_of(fig: Figure) -> list[str]:
    (legend,) = fig.legends
    return [text.get_text() for text in legend.get_texts()]


def curves_of(fig: Figure, panel: int = 3) -> dict[str, Any]:
    """The lines of a panel by the beginning of their label: `L = 8`."""
    return {str(line.get_label()).split(" (")[0]: line for line in fig.axes[panel].lines}


# plot_fit


def test_four_panels_hold_the_history() -> None:
    fit_res = history(LEARNED)

    fig, axes = plot_fit(fit_res)

    assert [ax.get_title() for ax in axes] == ["train_loss", "train_acc", "test_loss", "test_acc"]
    assert [ax.get_xlabel() for ax in axes] == ["Epoch #"] * 4
    assert [ax.get_ylabel() for ax in axes] == ["Loss", "Accuracy (%)"] * 2
    for ax, accuracies in ((axes[1], fit_res.train_acc), (axes[3], fit_res.test_acc)):
        assert ax.lines[0].get_xdata().tolist() == [1, 2, 3, 4, 5]
        assert ax.lines[0].get_ydata().tolist() == accuracies
    assert fig.number in pyplot.get_fignums()  # a notebook shows it
    assert not fig.legends


def test_losses_are_means_up_to_their_epoch_or_its_tenth() -> None:
    fit_res = FitResult(2, list(range(1, 2001)), [20.0, 30.0], list(range(1, 601)), [20.0, 30.0])

    _, axes = plot_fit(fit_res)

    train, validation = axes[0].lines[0], axes[2].lines[0]
    assert len(train.get_xdata()) == 20  # ten an epoch
    assert train.get_xdata()[:2].tolist() == [0.1, 0.2]
    assert train.get_ydata()[:2].tolist() == [50.5, 150.5]
    assert validation.get_xdata().tolist() == [1, 2]  # one an epoch
    assert validation.get_ydata().tolist() == [150.5, 450.5]


def test_a_short_training_lies_on_the_beginning_of_a_long_one() -> None:
    long, short = history([10.0] * 8, 833, 625), history([10.0] * 3, 833, 625)

    fig, axes = plot_fit(long)
    plot_fit(short, fig)

    for ax in axes:
        first, second = (line.get_xdata() for line in ax.lines)
        np.testing.assert_allclose(first[: len(second)], second, atol=0.01)


def test_ten_trainings_of_tens_of_thousands_of_batches_stay_light() -> None:
    fig = None
    for i in range(10):
        fig, axes = plot_fit(history([10.0] * 30, 850, 625), fig, legend=f"run {i}")

    assert all(len(ax.lines) == 10 for ax in axes)
    assert max(len(line.get_xdata()) for ax in axes for line in ax.lines) == 300


def test_few_losses_are_drawn_one_by_one() -> None:
    _, axes = plot_fit(FitResult(1, [2.3, 2.2, 2.4], [10.0], [2.3], [10.0]))

    assert axes[0].lines[0].get_xdata() == pytest.approx([1 / 3, 2 / 3, 1])
    assert axes[0].lines[0].get_ydata().tolist() == [2.3, 2.2, 2.4]


def test_one_legend_names_every_training_and_covers_no_panel() -> None:
    fig, axes = plot_fit(history(LEARNED), legend="K32_L2")
    same, _ = plot_fit(history(FLAT), fig, legend="K32_L8")

    assert same is fig
    assert legend_of(fig) == ["K32_L2", "K32_L8"]
    fig.canvas.draw()
    below = fig.legends[0].get_window_extent()
    assert not any(below.overlaps(ax.get_tightbbox()) for ax in axes)


def test_losses_can_be_logarithmic() -> None:
    fig, axes = plot_fit(history(LEARNED), log_loss=True)

    assert [ax.get_yscale() for ax in axes] == ["log", "linear", "log", "linear"]
    assert axes[0].get_ylabel() == "Loss (log)"
    fig.canvas.draw()
    low, high = axes[0].get_ylim()
    ticks = [tick.label1.get_text() for tick in axes[0].yaxis.get_major_ticks() if low < tick.get_loc() < high]
    assert "1.5" in ticks
    assert "2" in ticks


@pytest.mark.parametrize("log_loss", [False, True])
def test_a_diverged_training_ends_where_its_losses_do(log_loss: bool) -> None:
    losses = [1.0] * 150 + [math.nan, math.inf] * 75

    fig, axes = plot_fit(
        FitResult(3, losses, [30.0, 10.0, 10.0], [1.2, math.nan, math.nan], [30.0, 10.0, 10.0]), None, log_loss
    )

    fig.canvas.draw()
    line = axes[0].lines[0]
    assert np.isfinite(line.get_ydata()).tolist() == [True] * 15 + [False] * 15
    assert line.get_xdata()[14] == 1.5


@pytest.mark.parametrize("log_loss", [False, True])
def test_an_empty_history_and_a_loss_of_zero_can_be_drawn(log_loss: bool) -> None:
    fig, axes = plot_fit(FitResult.empty(), None, log_loss, "empty")
    plot_fit(FitResult(1, [0.0, 0.0], [100.0], [0.0], [100.0]), fig, log_loss, "perfect")

    fig.canvas.draw()
    assert [len(ax.lines[0].get_xdata()) for ax in axes] == [0, 0, 0, 0]
    assert legend_of(fig) == ["empty", "perfect"]


def test_a_figure_of_ones_own_is_used_and_a_wrong_one_refused() -> None:
    own, panels = pyplot.subplots(2, 2)

    fig, axes = plot_fit(history(LEARNED), own, legend="mine")

    assert fig is own
    assert list(axes) == list(panels.ravel())
    with pytest.raises(ValueError, match="fig has 1 axes; pass an empty figure or one with four"):
        plot_fit(history(LEARNED), pyplot.subplots()[0])


# plot_exp_results


def test_results_are_drawn_in_natural_order_without_their_prefix(tmp_path: Path) -> None:
    for depth in (16, 2, 8, 4):
        write_result(tmp_path, f"exp1_1_K32_L{depth}")
    write_result(tmp_path, "exp1_1_K64_L2")

    fig = plot_exp_results("exp1_1_K32*.json", tmp_path)

    assert fig is not None
    assert legend_of(fig) == ["K32_L2", "K32_L4", "K32_L8", "K32_L16"]
    assert fig.axes[0].get_yscale() == "log"


def test_a_name_of_another_kind_stays_whole(tmp_path: Path) -> None:
    write_result(tmp_path, "test_run")
    write_result(tmp_path, "exp2_wide")

    fig = plot_exp_results("*.json", str(tmp_path))

    assert fig is not None
    assert legend_of(fig) == ["wide", "test_run"]


def test_the_config_that_all_files_share_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(tmp_path, "exp1_1_K32_L2", lr=0.001, filters_per_layer=[32], layers_per_block=2)
    write_result(tmp_path, "exp1_1_K32_L4", lr=0.001, filters_per_layer=[32], layers_per_block=4)

    plot_exp_results("*", tmp_path)

    assert capsys.readouterr().out == "common config: {'seed': 42, 'lr': 0.001, 'filters_per_layer': [32]}\n"


@pytest.mark.parametrize("folder", [".", "missing"])
def test_no_match_is_said_on_stderr(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plot_exp_results("exp9*.json", tmp_path / folder) is None

    assert capsys.readouterr() == ("", "No results found for pattern exp9*.json.\n")
    assert not pyplot.get_fignums()


def test_damaged_and_foreign_files_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(tmp_path, "exp1_1_K32_L2")
    (tmp_path / "exp1_1_K32_L4.json").write_text('{"config": {')
    (tmp_path / "exp1_1_K32_L8.json").write_text('{"name": "a package"}')

    fig = plot_exp_results("*.json", tmp_path)
    write_figures(sorted(tmp_path.glob("*.json")), tmp_path / "figures")

    assert fig is not None
    assert legend_of(fig) == ["K32_L2"]
    complaints = capsys.readouterr().err.splitlines()
    assert len(complaints) == 4
    for complaint, name in zip(complaints, ["exp1_1_K32_L4.json", "exp1_1_K32_L8.json"] * 2, strict=True):
        assert name in complaint


# write_figures


def test_each_row_of_the_grid_has_a_figure(tmp_path: Path, drawn: list[Figure]) -> None:
    names = [f"exp1_1_K{k}_L{depth}" for k in (64, 32) for depth in (16, 2, 8)]
    names += [f"exp1_2_L2_K{k}" for k in ("128", "32", "64-128")] + ["test_run"]
    files = [write_result(tmp_path, name) for name in names]

    written = write_figures(files, tmp_path / "new" / "figures")

    assert [path.name for path in written] == ["exp1_1_K32.png", "exp1_1_K64.png", "exp1_2_L2.png", "test_run.png"]
    assert sorted(written) == sorted((tmp_path / "new" / "figures").iterdir())  # and nothing half-written beside
    assert legend_of(drawn[0]) == ["L = 2 (63.1 %)", "L = 8 (63.1 %)", "L = 16 (63.1 %)"]
    assert legend_of(drawn[2]) == ["K = 32 (63.1 %)", "K = 128 (63.1 %)", "K = 64-128 (63.1 %)"]
    assert legend_of(drawn[3]) == ["test_run (63.1 %)"]
    assert [fig.get_suptitle() for fig in drawn] == [
        "exp1_1: K = 32 fixed, L varies",
        "exp1_1: K = 64 fixed, L varies",
        "exp1_2: L = 2 fixed, K varies",
        "test_run",
    ]


CNN = {"filters_per_layer": [32], "lr": 0.001, "pool_every": 4}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["exp1_1_L2_K32", "exp1_1_L8_K32"], {"exp1_1_K32": "exp1_1: K = 32 fixed, L varies"}),
        (["exp1_1_K32_L2", "exp1_1_K64_L2"], {"exp1_1_L2": "exp1_1: L = 2 fixed, K varies"}),
        (["exp1_1_K32_L2"], {"exp1_1_K32": "exp1_1: K = 32, L = 2"}),
        (["K32_L2", "K32_L4"], {"K32": "K = 32 fixed, L varies"}),
        (["exp1_1_k32_l2", "exp1_1_k32_l4"], {"exp1_1_k32": "exp1_1: K = 32 fixed, L varies"}),
        (["a_K8_L2_P1", "a_K8_L2_P4", "a_K8_L4_P1"], {
            "a_K8_L2": "a: K = 8, L = 2 fixed, P varies", "a_K8_L4": "a: K = 8, L = 4, P = 1"
        }),
        (["a_lr0.01_K8", "a_lr0.001_K8", "a_lr0.001_K8_S2"], {"a_K8": "a: K = 8 fixed, lr varies"}),
        (["a_L2_K32", "a_L4_K64"], {"a": "a: K and L vary"}),  # a figure of one curve each would compare nothing
        (["testK64L2", "testK64L16"], {"testK64": "testK64: L varies"}),
        (["a_0.1", "a_0.02"], {"a": "a: lr varies"}),  # of run_name: a_{lr}
        (["w_act4", "w_act8"], {"w": "w: P varies"}),  # of run_name: w_act{pool_every}
        (["quick_L2", "quick_L8"], {"quick": "quick: L varies"}),
        (["one_K8_L2", "two_K8_L4"], {"one_K8": "one: K = 8, L = 2", "two_K8": "two: K = 8, L = 4"}),
    ],
)  # fmt: skip
def test_a_figure_is_of_what_varies_and_its_title_is_true(
    names: list[str], expected: dict[str, str], tmp_path: Path, drawn: list[Figure]
) -> None:
    patterns = {
        "filters_per_layer": r"[Kk](\d+)", "layers_per_block": r"[Ll](\d+)", "pool_every": r"(?:P|act)(\d)",
        "lr": r"(0\.\d+)", "seed": r"S(\d)",
    }  # fmt: skip
    files = []
    for name in names:
        found = {key: re.search(pattern, name) for key, pattern in patterns.items()}
        config = {key: json.loads(match[1]) for key, match in found.items() if match}
        files.append(write_result(tmp_path, name, **config))
    written = write_figures(files, tmp_path)

    assert {path.stem: fig.get_suptitle() for path, fig in zip(written, drawn, strict=True)} == expected


def test_what_a_config_says_is_true_and_not_the_name(tmp_path: Path, drawn: list[Figure]) -> None:
    files = [
        write_result(tmp_path, "exp1_2_L2_K258", filters_per_layer=[256], layers_per_block=2),
        write_result(tmp_path, "exp1_2_L3_K258", filters_per_layer=[256], layers_per_block=3),
    ]

    write_figures(files, tmp_path)

    assert drawn[0].get_suptitle() == "exp1_2_K258: L varies"
    assert legend_of(drawn[0]) == ["L = 2 (63.1 %)", "L = 3 (63.1 %)"]


def test_settings_that_the_names_do_not_tell_stand_in_the_legend(tmp_path: Path, drawn: list[Figure]) -> None:
    files = [write_result(tmp_path, f"exp1_1_K32_L{depth}", **CNN) for depth in (2, 4)]
    files.append(write_result(tmp_path, "exp1_1_K32_L8", **{**CNN, "lr": 0.0001, "kw": {"flip": True}}))
    files.append(write_result(tmp_path, "exp1_1_K32_L16", model_type="resnet", **CNN))

    write_figures(files, tmp_path)

    assert drawn[0].get_suptitle() == "exp1_1: K = 32 fixed, L, lr, flip and model_type vary"
    assert legend_of(drawn[0])[2:] == [
        "L = 8, lr = 0.0001, flip = true, model_type = none (63.1 %)",
        "L = 16, lr = 0.001, flip = false, model_type = resnet (63.1 %)",
    ]


def test_no_figure_replaces_another(tmp_path: Path) -> None:
    """The first name seems to tell the number of epochs."""
    files = [write_result(tmp_path, f"a_1_L{depth}", **CNN, epochs=depth // 2) for depth in (2, 4)]

    written = write_figures(files, tmp_path)

    assert [path.name for path in written] == ["a_1_1.png", "a_1_2.png"]


def test_seeds_with_other_settings_are_told_apart(tmp_path: Path, drawn: list[Figure]) -> None:
    files = [
        write_result(tmp_path, f"best_S{seed}", **{**CNN, "lr": lr, "seed": seed})
        for seed, lr in [(1, 0.1), (2, 0.1), (3, 0.2)]
    ]

    write_figures(files, tmp_path)

    assert drawn[0].get_suptitle() == "best: lr varies"
    assert legend_of(drawn[0]) == ["lr = 0.1 (63.1 %, 2 runs)", "lr = 0.2 (63.1 %)"]


def test_what_a_file_does_not_tell_is_no_difference(tmp_path: Path, drawn: list[Figure]) -> None:
    """Editions of the assignment wrote other keys."""
    write_result(tmp_path, "exp1_1_K32_L2", **CNN, ycn=False, kw={"flip": False})
    write_result(tmp_path, "exp1_1_K32_L4", **CNN)

    write_figures(list(tmp_path.glob("*.json")), tmp_path)

    assert drawn[0].get_suptitle() == "exp1_1: K = 32 fixed, L varies"
    assert legend_of(drawn[0]) == [f"L = {depth} (63.1 %)" for depth in (2, 4)]


@pytest.mark.parametrize("name", ["a$b$", r"_hidden\$5\frac{1}^50%#&~", "tab\tbell\a\x1b[2J"])
def test_names_are_drawn_as_they_are(name: str, tmp_path: Path, drawn: list[Figure]) -> None:
    (written,) = write_figures([write_result(tmp_path, name)], tmp_path)
    fig = plot_exp_results(f"{glob.escape(name)}.json", tmp_path)

    assert fig is not None
    fig.canvas.draw()
    assert written.name.isprintable()
    shown = printable(name)
    texts = [drawn[0].get_suptitle(), *legend_of(drawn[0]), *legend_of(fig)]
    assert len(texts) >= 2
    for text in texts:
        assert not is_math_text(text)
        assert shown.strip("_") in text.replace(r"\$", "$")  # which is what Matplotlib does as well


def test_the_users_configuration_of_matplotlib_changes_nothing(tmp_path: Path) -> None:
    path = write_result(tmp_path, "exp1_1_K32_L2")
    (plain,) = write_figures([path], tmp_path / "plain")
    theirs = {
        "text.usetex": True,
        "font.family": "None Such",
        "figure.facecolor": "black",
        "axes.prop_cycle": "cycler(lw=[9])",
    }
    with matplotlib.rc_context(theirs):
        (styled,) = write_figures([path], tmp_path / "styled")
        assert matplotlib.rcParams["text.usetex"]

    assert styled.read_bytes() == plain.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "rc"),
    [
        (
            {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
            b"backend: none such\nsavefig.format: gif\ntext.usetex: True\npath.effects: 3\nno colon",
        ),
        ({"MPLBACKEND": "none such"}, b""),  # Matplotlib itself cannot be imported with this, nor with the next
        ({}, b"\xff\xfe\0"),
    ],
)
def test_figures_are_written_whatever_the_user_has_configured(
    variables: dict[str, str], rc: bytes, tmp_path: Path
) -> None:
    write_result(tmp_path, "exp1_1_K32_L2")
    (tmp_path / "matplotlibrc").write_bytes(rc)

    done = subprocess.run(
        [sys.executable, "-m", "tune_cnn", "plot", "*", "--results", "."],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "exp1_1_K32.png\n"), done.stderr
    assert (tmp_path / "exp1_1_K32.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_with_one_training_loss_an_epoch_fits_beside_others(tmp_path: Path, drawn: list[Figure]) -> None:
    by_epoch = write_result(tmp_path, "exp1_1_K32_L2", results={"train_loss": [2.0, 1.8, 1.6, 1.5, 1.4]})
    write_figures([by_epoch, write_result(tmp_path, "exp1_1_K32_L4")], tmp_path)

    panel = drawn[0].axes[0]
    assert panel.get_title() == "Training loss"
    assert panel.lines[0].get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert panel.lines[0].get_ydata().tolist() == [2.0, 1.8, 1.6, 1.5, 1.4]
    assert panel.lines[1].get_xdata()[-1] == 5


def test_a_training_without_accuracies_is_not_said_to_have_failed(tmp_path: Path, drawn: list[Figure]) -> None:
    write_figures([write_result(tmp_path, "exp1_1_K32_L2", results={"test_acc": []})], tmp_path)

    assert legend_of(drawn[0]) == ["L = 2 (no accuracy)"]


def test_seeds_are_curves_of_one_cell(tmp_path: Path, drawn: list[Figure]) -> None:
    files = [
        write_result(tmp_path, "exp1_1_K32_L2_S1", [50.0, 61.0], seed=1),
        write_result(tmp_path, "exp1_1_K32_L2_S2", [50.0, 63.2], seed=2),
        write_result(tmp_path, "exp1_1_K32_L4_S1", [50.0, 64.0], seed=1),
        write_result(tmp_path, "exp1_1_K32_L4_S2", [10.0, 10.2], seed=2),
    ]

    (written,) = write_figures(files, tmp_path)

    assert written.name == "exp1_1_K32.png"
    cells = ["L = 2 (61.0 to 63.2 %, 2 runs)", "L = 4 (10.2 to 64.0 %, 2 runs, 1 did not learn)"]
    assert legend_of(drawn[0]) == [*cells, "chance (10 %)"]
    lines = drawn[0].axes[3].lines
    assert [line.get_ydata()[-1] for line in lines[:4]] == [61.0, 63.2, 64.0, 10.2]
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color() == lines[3].get_color()


def test_seeds_of_a_name_without_k_and_l_share_a_figure(tmp_path: Path, drawn: list[Figure]) -> None:
    files = [write_result(tmp_path, f"best_S{seed}", [50.0, 60.0 + seed], seed=seed) for seed in (1, 2, 3)]

    (written,) = write_figures(files, tmp_path)

    assert written.name == "best.png"
    assert legend_of(drawn[0]) == ["best (61.0 to 63.0 %, 3 runs)"]
    assert drawn[0].get_suptitle() == "best"


def test_a_depth_has_one_colour_in_all_figures_and_no_two_have_the_same(tmp_path: Path, drawn: list[Figure]) -> None:
    files = [write_result(tmp_path, f"exp1_1_K32_L{depth}") for depth in (1, 2, 3, 4, 8, 16, 32)]
    files += [write_result(tmp_path, f"exp1_1_K64_L{depth}") for depth in (4, 16)]

    write_figures(files, tmp_path)

    many, two = (
        {name: to_hex(line.get_color()) for name, line in curves_of(fig).items() if name.startswith("L")}
        for fig in drawn
    )
    assert len(set(many.values())) == 7
    assert two == {name: many[name] for name in ("L = 4", "L = 16")}
    for panel in range(4):
        assert to_hex(curves_of(drawn[0], panel)["L = 8"].get_color()) == many["L = 8"]


def test_a_network_that_did_not_learn_is_dashed_beside_the_level_of_chance(tmp_path: Path, drawn: list[Figure]) -> None:
    files = [write_result(tmp_path, "exp1_1_K32_L2"), write_result(tmp_path, "exp1_1_K32_L8", FLAT)]

    write_figures(files, tmp_path)

    assert legend_of(drawn[0]) == ["L = 2 (63.1 %)", "L = 8 (10.1 %, did not learn)", "chance (10 %)"]
    for panel, level in enumerate([math.log(10), 10, math.log(10), 10]):
        curves = curves_of(drawn[0], panel)
        assert curves["L = 2"].get_linestyle() == "-"
        assert curves["L = 8"].get_linestyle() == "--"
        assert curves["chance"].get_ydata() == pytest.approx([level, level])


def test_where_classes_are_unequal_the_level_is_that_of_the_most_frequent_one(tmp_path: Path, drawn) -> None:
    path = write_result(tmp_path, "exp1_1_K32_L8", [79.0, 80.0])
    content = json.loads(path.read_text())
    content["trial"]["majority_accuracy"] = 80.0
    path.write_text(json.dumps(content))

    write_figures([path], tmp_path)

    assert legend_of(drawn[0]) == ["L = 8 (80.0 %, did not learn)", "the most frequent class (80 %)"]
    assert "most frequent class" not in curves_of(drawn[0], 2)  # whose loss is not known


def test_chance_depends_on_the_number_of_classes(tmp_path: Path, drawn: list[Figure]) -> None:
    accuracies = [20.0, 28.0]  # poor for 4 classes, learned for 10
    files = [
        write_result(tmp_path, "four_K8_L2", accuracies, classes=4),
        write_result(tmp_path, "ten_K8_L2", accuracies, classes=10),
    ]
    old = json.loads(files[1].read_text())
    del old["trial"]  # as files of other programs have it
    (tmp_path / "unknown_K8_L2.json").write_text(json.dumps(old))

    write_figures([*files, tmp_path / "unknown_K8_L2.json"], tmp_path)

    assert legend_of(drawn[0]) == ["L = 2 (28.0 %, did not learn)", "chance (25 %)"]
    assert legend_of(drawn[1]) == legend_of(drawn[2]) == ["L = 2 (28.0 %)"]


@pytest.mark.parametrize(("classes", "top"), [(2, 100), (4, 75), (10, 30)])
def test_the_axis_of_accuracies_ends_at_a_hundred_percent(tmp_path, drawn: list[Figure], classes: int, top: int):
    write_figures([write_result(tmp_path, "exp1_1_K32_L8", [10.0, 20.0], classes=classes)], tmp_path)
    assert [ax.get_ylim() for ax in drawn[0].axes[1::2]] == [(0, top)] * 2


def test_a_loss_that_stands_still_looks_so(tmp_path: Path, drawn: list[Figure]) -> None:
    losses = [2.3026, 2.3025, 2.3027, 2.3024, 2.3025]
    write_figures([write_result(tmp_path, "exp1_1_K32_L8", FLAT, results={"test_loss": losses})], tmp_path)

    low, high = drawn[0].axes[2].get_ylim()
    assert high - low > 0.4


def test_a_diverged_training_has_a_figure(tmp_path: Path, drawn: list[Figure]) -> None:
    losses = {"train_loss": [None] * 100, "test_loss": [None] * 30}  # strict JSON has no NaN
    path = write_result(tmp_path, "exp1_1_K32_L8", FLAT, results=losses)

    assert write_figures([path], tmp_path)[0].exists()
    assert legend_of(drawn[0]) == ["L = 8 (10.1 %, diverged)"]


def test_the_notebook_keeps_its_figures_and_its_backend(tmp_path: Path) -> None:
    files = [write_result(tmp_path, f"run{i}") for i in range(3)]
    mine = pyplot.figure()
    backend = matplotlib.get_backend()

    write_figures(files, tmp_path)

    assert pyplot.get_fignums() == [mine.number]
    assert matplotlib.get_backend() == backend


@pytest.mark.parametrize(("format", "beginning"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_results_give_the_same_figure_to_the_byte(format: str, beginning: bytes, tmp_path: Path) -> None:
    files = [write_result(tmp_path, "exp1_1_K32_L2"), write_result(tmp_path, "exp1_1_K32_L8", FLAT)]
    (first,) = write_figures(files, tmp_path / "first", format)
    (second,) = write_figures(files, tmp_path / "second", format)

    assert first == tmp_path / "first" / f"exp1_1_K32.{format}"
    assert first.read_bytes().startswith(beginning)
    assert first.read_bytes() == second.read_bytes()


def test_a_figure_is_fit_for_a_paper(tmp_path: Path, drawn: list[Figure]) -> None:
    (written,) = write_figures([write_result(tmp_path, "test_run")], tmp_path, "pdf")

    assert b"/Subtype /Type3" not in written.read_bytes()  # fonts that some publishers refuse
    assert [ax.get_ylabel() for ax in drawn[0].axes] == ["Loss (nats, log)", "Accuracy (%)"] * 2


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    path = write_result(tmp_path, "test_run")

    with pytest.raises(StorageError, match=r"test_run\.json.test_run\.png: cannot be written \(.*\)"):
        write_figures([path], path)
