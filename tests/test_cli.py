"""The command line: what each command prints, writes and returns, and that no mistake of a user is a traceback."""

import contextlib
import errno
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from sweep_process import wait_until
from tiny_sweep import train, write_config

from tune_cnn import experiments
from tune_cnn.cli import commands, main
from tune_cnn.cli.main import parser
from tune_cnn.errors import DataError, ResourceError, StorageError
from tune_cnn.machine import cpu_kind
from tune_cnn.result_files import load_result_file
from tune_cnn.settings import DataSettings, Settings
from tune_cnn.sweep import cluster, plan, remarks
from tune_cnn.sweep.cluster import ClusterOptions
from tune_cnn.sweep.config.load import Experiment
from tune_cnn.sweep.lock import locked
from tune_cnn.sweep.plan import PlannedExperiment
from tune_cnn.sweep.runner import run_sweep
from tune_cnn.sweep.sweep_folder import SweepFolder

CONFIGS = Path(__file__).parent.parent / "configs"
COMMANDS = re.findall(r"^    (\w+) +\w", parser().format_help(), re.MULTILINE)
FIGURE = "tiny_L1.png"


def run(*arguments: str) -> int:
    """The exit code of `tune-cnn ARGUMENTS`."""
    try:
        return main(arguments)
    except SystemExit as error:  # of argparse
        return error.code


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with `tiny.yaml` and its finished sweep, to be copied."""
    home = tmp_path_factory.mktemp("trained")
    train(write_config(home), SweepFolder(str(home / "ray_results"), "tiny"))
    return home


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with `tiny.yaml` and no sweep."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    return tmp_path


@pytest.fixture
def finished(here: Path, trained: Path) -> SweepFolder:
    """The working folder's finished sweep `tiny`."""
    shutil.copytree(trained / "ray_results", here / "ray_results")
    return SweepFolder("ray_results", "tiny")


@pytest.fixture(autouse=True)
def runner(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., dict[str, str]]], None]:
    """Puts something else in the place of Ray; a test that does not use it must not come so far."""

    def replace(run_sweep: Callable[..., dict[str, str]]) -> None:
        monkeypatch.setattr("tune_cnn.api.run_sweep", run_sweep)

    replace(raising(AssertionError("the sweep ran")))
    monkeypatch.setattr(remarks, "estimate", raising(ResourceError("this is a test")))  # it takes some seconds
    return replace


def trains(experiments: Sequence[Experiment], folder: SweepFolder, *_: object, **__: object) -> dict[str, str]:
    train(experiments, folder)
    return {}


def raising(error: BaseException) -> Callable[..., None]:
    """What does nothing but fail."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_ends_with_an_example_that_can_be_typed(command, capsys):
    assert run(command, "--help") == 0
    heading, *examples = capsys.readouterr().out.rstrip().rpartition("\n\n")[2].split("\n")
    assert re.fullmatch("Examples?:", heading)
    assert examples
    for example in examples:
        program, *arguments = shlex.split(example)
        assert (program, arguments[0]) == ("tune-cnn", command)
        assert parser().parse_args(arguments).command == command
        assert "configs/" not in example, "needs a clone, or tune-cnn init first"


def test_the_help_lists_the_commands_that_there_are_and_ends_with_a_first_try(capsys):
    modules = {path.stem for path in Path(commands.__file__).parent.glob("*.py")}
    assert set(COMMANDS) == modules - {"__init__"}
    assert {"sweep", "trial", "export", "plot", "board"} <= set(COMMANDS)
    assert run("--help") == 0
    assert capsys.readouterr().out.endswith("A first try, on drawn images:\n  tune-cnn sweep quick\n")


def test_the_version_is_the_packages(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == "tune-cnn 0.1.0\n"


# Dry run


def test_a_dry_run_shows_the_plan_and_needs_neither_images_nor_ray(empty_home, here, capsys):
    assert run("sweep", str(CONFIGS / "exp1_1.yaml"), str(CONFIGS / "exp1_2.yaml"), "--dry-run") == 0
    out, err = capsys.readouterr()
    assert "\n20 experiments, 14 trials: 0 done, 0 to continue, 14 new\n" in out
    assert re.search(r"^disk: up to \d+\.\d GB while it runs, \d+\.\d GB in the end$", out, re.MULTILINE)
    assert "\nno verdict without images: CIFAR10 is not in " in out
    assert err == "data: cifar10: 10 classes; 42,500 images to train, 7,500 to validate, 10,000 to test\n"
    assert list(empty_home.iterdir()) == []
    assert sorted(path.name for path in here.iterdir()) == ["home", "tiny.yaml"]


def test_a_dry_run_tells_what_is_done_and_what_fresh_would_do(finished, capsys):
    assert run("sweep", "tiny.yaml", "--dry-run") == 0
    assert "2 experiments, 2 trials: 2 done, 0 to continue, 0 new" in capsys.readouterr().out
    assert run("sweep", "tiny.yaml", "--dry-run", "--fresh") == 0
    assert "2 experiments, 2 trials: 0 done, 0 to continue, 2 new" in capsys.readouterr().out
    assert SweepFolder("ray_results", "tiny").folder.names() == ["sweep.json", "trials"]


def test_a_dry_run_tells_how_long_each_trial_and_all_of_them_take(here, capsys, monkeypatch):
    def estimate(plan: Sequence[PlannedExperiment], *_: object, within_s: float) -> tuple[dict[str, float], str]:
        return {plan[1].settings.trial_id: 7265.0}, "time: at most 2 h 2 min"

    monkeypatch.setattr(remarks, "estimate", estimate)
    assert run("sweep", "tiny.yaml", "--dry-run") == 0
    out = capsys.readouterr().out
    assert re.findall(r"^(tiny\S+) .* (-|2 h 1 min)  new$", out, re.MULTILINE) == [
        ("tiny_L1_K4", "-"), ("tiny_L1_K6", "2 h 1 min"),
    ]  # fmt: skip
    assert "\ntime: at most 2 h 2 min\n" in out


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "time: not estimated (this is a test)"),
        (("--address", "host:1"), "time: not estimated, since the steps of a cluster cannot be timed from here"),
    ],
)
def test_a_dry_run_tells_why_there_is_no_time(here, options, line, capsys):
    assert run("sweep", "tiny.yaml", "--dry-run", *options) == 0
    assert f"\n{line}\n" in capsys.readouterr().out


def test_a_dry_run_tells_which_trials_will_learn(here, capsys):
    assert run("sweep", str(CONFIGS / "quick.yaml"), "--dry-run") == 0
    out = capsys.readouterr().out
    assert re.findall(r"(quick_K\w+) .* M  (trains|at risk|will not learn) +- +new", out) == [
        ("quick_K8_L2", "trains"), ("quick_K8_L4", "trains"), ("quick_K8_L8", "will not learn"),
        ("quick_K16_L2", "trains"), ("quick_K16_L4", "trains"), ("quick_K16_L8", "will not learn"),
    ]  # fmt: skip
    assert "no verdict" not in out


# Diagnosis


def test_the_diagnosis_names_each_trial_once_with_reason_and_remedies(here, capsys):
    quick = CONFIGS / "quick.yaml"
    (here / "twice.yaml").write_text(quick.read_text().replace("quick_", "again_"))
    assert run("diagnose", str(quick), "twice.yaml", "--only", "*_K8_L[28]") == 0
    header, shallow, deep, empty, reason, remedies = capsys.readouterr().out.splitlines()
    assert re.split("  +", header) == [
        "experiment", "verdict", "score spread", "least gradient/weight", "in conv", "most dead units",
    ]  # fmt: skip
    assert re.fullmatch(r"quick_K8_L2 +trains +\d\.\de-03 +\d\.\de-0[23] +[12] +\d+%", shallow)
    assert re.fullmatch(r"quick_K8_L8 +will not learn +\d\.\de-06 +\d\.\de-0[56] +1 +\d+%", deep)
    assert empty == ""
    assert reason.startswith("quick_K8_L8: will not learn. The scores of different images differ by ")
    assert re.fullmatch(
        r"  remedies: init: he, or ycn: true, or reg: \de-0[67] or less, or optimizer: adamw, or fewer layers", remedies
    )


def test_the_diagnosis_needs_images(here, capsys):
    assert run("diagnose", "tiny.yaml", "--data", f"image_folder:{here}/nowhere") == 2
    assert "there is no such folder" in capsys.readouterr().err


# A sweep, with the training in this process


def test_a_sweep_ends_with_its_results_and_figures_in_place(here, runner, capsys):
    runner(trains)
    assert run("sweep", "tiny.yaml", "--set", "epochs=1", "--name", "first-try") == 0
    out, err = capsys.readouterr()
    images, plan = err.splitlines()
    assert images.startswith("data: shapes: 10 classes (")
    assert plan == f"sweep {here}/ray_results/first-try: 2 experiments, 2 trials: 0 done, 0 to continue, 2 new"
    header, *rows = out.splitlines()
    assert header.startswith("trial")
    assert [row.split()[1:4] for row in rows[:2]] == [["4", "1", "1"], ["6", "1", "1"]]
    assert rows[2:] == [
        f"figure: results/{FIGURE}",
        "report: results/first-try_report.html",
        "report: results/first-try_report.md",
        "report: results/first-try.csv",
        "2 result files and 1 figure in results",
    ]
    assert sorted(path.name for path in (here / "results").iterdir()) == [
        "first-try.csv", "first-try_report.html", "first-try_report.md", FIGURE, "tiny_L1_K4.json", "tiny_L1_K6.json",
    ]  # fmt: skip
    assert (here / "results" / FIGURE).read_bytes().startswith(b"\x89PNG")
    assert "lock.json" not in SweepFolder("ray_results", "first-try").folder.names()


def test_options_reach_the_runner(here, runner):
    asked = []

    def remembers(
        experiments: Sequence[Experiment], folder: SweepFolder, cluster: ClusterOptions, keep_others: bool, *_: object
    ) -> dict[str, str]:
        asked.append(([experiment.name for experiment in experiments], str(folder), cluster, keep_others))
        return trains(experiments, folder, cluster)

    runner(remembers)
    assert run("sweep", "tiny.yaml", "--only", "*K4*", "--storage", "elsewhere", "--cpus", "3", "--gpus", "0") == 0
    assert run("sweep", "tiny.yaml") == 0
    assert asked == [
        (["tiny_L1_K4"], f"{here}/elsewhere/tiny", ClusterOptions(None, 3, 0), True),
        (["tiny_L1_K4", "tiny_L1_K6"], f"{here}/ray_results/tiny", ClusterOptions(), False),
    ]


def test_cores_and_gpus_that_are_not_there_are_remarked_on(here, runner, capsys, monkeypatch):
    runner(trains)
    monkeypatch.setattr(cluster, "cores", lambda: 2)
    assert run("sweep", "tiny.yaml", "--cpus", "2", "--gpus", "0") == 0
    assert "this machine has" not in capsys.readouterr().err
    assert run("sweep", "tiny.yaml", "--cpus", "9", "--gpus", "99") == 0
    told = capsys.readouterr().err
    assert re.search(
        r"^this machine has 2 cores and \d GPUs?: trials share the cores, and compute on th", told, re.MULTILINE
    )


@pytest.mark.parametrize("arguments", [["sweep"], ["sweep", "--dry-run"], ["trial"]])
@pytest.mark.parametrize(("precision", "is_slow"), [("bf16", True), ("fp16", True), ("fp32", False)])
def test_a_precision_that_this_cpu_has_no_instructions_for_is_told_before(
    here, runner, capsys, monkeypatch, arguments, precision, is_slow
):
    runner(trains)
    for module in (remarks, experiments):
        monkeypatch.setattr(module, "slow_here", lambda precision: precision in ("bf16", "fp16"))
    command, *options = arguments
    name = ["tiny_L1_K4"] if command == "trial" else ["--gpus", "0"]
    change = ["--set", f"precision={precision}", "--set", "epochs=1"]
    assert run(command, "tiny.yaml", *name, *options, *change) == 0
    told = f"precision {precision}: this CPU has no instructions for it, so a training takes some 20 times as long; "
    assert capsys.readouterr().err.count(f"{told}precision=fp32 is fast here") == is_slow


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["epochs=1000000"], r"time: some \d+ h \d+ min on 2 cores, if no trial stops early; --dry-run .*fewer epochs"),
        (["grid.filters_per_layer=[[4000]]", "grid.layers_per_block=[8]", "pool_every=8", "epochs=300"], r"some \d+ h"),
        ([], None),
        (["epochs=1000"], None),
    ],
)
def test_a_plan_of_hours_is_told_at_the_start(here, runner, capsys, change, told):
    runner(lambda *_, **__: {})
    options = [part for pair in change for part in ("--set", pair)]
    run("sweep", "tiny.yaml", "--cpus", "2", "--gpus", "0", *options)
    err = capsys.readouterr().err
    assert re.search(told, err) if told else "time:" not in err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "out of memory or threads (MemoryError); end other programs, or ask "),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "(CUDA out of memory. Tried); end"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you\nat"),
            "can't allocate memory: you); end",
        ),
        (
            ImportError("libtorch_cpu.so: failed to map segment"),
            "(libtorch_cpu.so: failed to map segment); end",
        ),
        (
            RuntimeError("can't start new thread"),
            "(can't start new thread); end other programs, or ask for fewer --th",
        ),
    ],
)
def test_want_of_memory_or_threads_is_a_line(here, capsys, monkeypatch, error, told):
    monkeypatch.setattr("tune_cnn.experiments.train", raising(error))
    assert run("trial", "tiny.yaml", "tiny_L1_K4") == 2
    assert told in capsys.readouterr().err


def test_a_fault_that_only_mentions_memory_keeps_its_traceback(here, monkeypatch):
    monkeypatch.setattr("tune_cnn.experiments.train", raising(RuntimeError("CUDA error: an illegal memory access")))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run("trial", "tiny.yaml", "tiny_L1_K4")


def test_results_that_other_settings_will_replace_are_named(finished, runner, capsys):
    runner(trains)
    assert run("sweep", "tiny.yaml") == 0
    assert "other settings" not in capsys.readouterr().err
    remark = (
        "results: tiny_L1_K4.json, tiny_L1_K6.json will be replaced, with results of other settings; "
        "to keep them, give another --out, and a sweep another --name\n"
    )
    assert run("sweep", "tiny.yaml", "--set", "epochs=1", "--dry-run") == 0
    assert remark in capsys.readouterr().out
    assert run("sweep", "tiny.yaml", "--set", "epochs=1") == 0
    assert remark in capsys.readouterr().err
    assert run("sweep", "tiny.yaml", "--name", "another") == 0  # by another sweep, or a single trial
    assert remark in capsys.readouterr().err
    assert run("sweep", "tiny.yaml", "--set", "epochs=1", "--only", "*K6") == 0
    assert remark in capsys.readouterr().err, "the rest of the sweep is exported again, too"
    assert run("sweep", "tiny.yaml", "--name", "another") == 0
    for command in (["trial", "tiny.yaml", "tiny_L1_K4", "--set", "epochs=1"], ["export", "another"]):
        assert run(*command) == 0
        assert "results: tiny_L1_K4.json will be replaced" in capsys.readouterr().err


def test_fresh_trains_again_and_keeps_the_old_trials(finished, runner, capsys):
    runner(trains)
    assert run("sweep", "tiny.yaml", "--fresh") == 0
    assert finished.folder.names() == ["sweep.json", "trials", "trials-2"]
    assert re.search(r"training everything in \S+trials-2; what is in \S+trials stays there", capsys.readouterr().err)
    assert len(finished.trials.names()) == 2


def test_a_sweep_whose_images_are_missing_says_so_before_ray_starts(here, runner, monkeypatch, capsys):
    missing = DataError("CIFAR10 is not in here, and cannot be downloaded")
    monkeypatch.setattr("tune_cnn.data.load", raising(missing))
    runner(run_sweep)
    assert run("sweep", "tiny.yaml") == 2
    said = capsys.readouterr().err
    assert str(missing) in said
    assert "starting Ray" not in said


def test_a_failed_trial_is_exit_code_1_and_the_others_are_exported(here, runner, capsys):
    def fails(experiments: Sequence[Experiment], folder: SweepFolder, *_: object, **__: object) -> dict[str, str]:
        train(experiments[1:], folder)
        folder.save_experiments({experiment.name: experiment.settings for experiment in experiments})
        folder.trial(experiments[0].settings).save_failure("epoch 1: IndexError: no such label", "Traceback")
        return {experiments[0].settings.trial_id: "epoch 1: IndexError: no such label"}

    runner(fails)
    assert run("sweep", "tiny.yaml") == 1
    out = capsys.readouterr().out
    assert "failed: epoch 1: IndexError: no such label" in out
    assert "Traceback" not in out
    assert [path.name for path in (here / "results").glob("*.json")] == ["tiny_L1_K6.json"]
    report = Path("results/tiny_report.md").read_text()
    assert "| failed: epoch 1: IndexError: no such label | – | failed |\n" in report


@pytest.mark.parametrize(
    ("broken", "left"),
    [
        ({"figure_files.write_figures": RuntimeError("latex was not found,\nso no usetex")}, ["html", "md"]),
        ({"figure_files.write_figures": ModuleNotFoundError("No module named 'matplotlib_inline'")}, ["html", "md"]),
        ({"write_report": StorageError("tiny_report.html: cannot be written (Is a directory)")}, ["png"]),
        ({"figure_files.write_figures": MemoryError(), "write_report": KeyError("K")}, []),
    ],
)
def test_whatever_fails_after_the_result_files_is_a_line_and_leaves_the_rest(
    here, finished, runner, capsys, monkeypatch, broken, left
):
    runner(trains)
    for name, error in broken.items():
        monkeypatch.setattr(f"tune_cnn.report.{name}", raising(error))
    for command in (["sweep", "tiny.yaml"], ["report", "tiny"]):
        shutil.rmtree("results", ignore_errors=True)
        assert run(*command) == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if "not written" in line]
        assert len(lines) == len(broken)
        for line, error in zip(lines, broken.values(), strict=True):
            assert line.startswith(("figures: not written", "report: not written"))
            assert " ".join(str(error).split()) in line
            assert line.endswith(f"fix that, then type: tune-cnn report {finished} --out results")
        written = {path.suffix[1:] for path in Path("results").iterdir()}
        assert written >= {"json", *left}


def test_a_result_file_that_cannot_be_written_is_named_and_leaves_the_rest(here, runner, capsys):
    runner(trains)
    Path("results/tiny_L1_K4.json").mkdir(parents=True)
    remedy = f"fix that, then type: tune-cnn export {here}/ray_results/tiny --out results"
    line = f"results/tiny_L1_K4.json: not written (Is a directory); {remedy}"
    assert run("sweep", "tiny.yaml") == 1
    assert line in capsys.readouterr().err.splitlines()
    assert {path.name for path in Path("results").glob("*.*")} > {"tiny_L1_K6.json", "tiny_report.html", FIGURE}
    assert run("export", "tiny") == 1
    assert capsys.readouterr().err.splitlines() == [line]


def test_the_command_that_writes_a_missing_file_can_be_typed(finished, capsys):
    Path("the results/tiny_L1_K4.json").mkdir(parents=True)
    assert run("export", "tiny", "--out", "the results") == 1
    remedy = f"fix that, then type: tune-cnn export {finished} --out 'the results'"
    assert capsys.readouterr().err == f"the results/tiny_L1_K4.json: not written (Is a directory); {remedy}\n"


def test_an_interrupted_sweep_exports_what_is_finished_and_says_how_to_continue(here, runner, capsys):
    def interrupted(experiments: Sequence[Experiment], folder: SweepFolder, *_: object, **__: object) -> dict[str, str]:
        train(experiments[:1], folder)
        folder.save_experiments({experiment.name: experiment.settings for experiment in experiments})
        raise KeyboardInterrupt

    runner(interrupted)
    assert run("sweep", "tiny.yaml", "--fresh", "--set", "hidden_dims=[10, 10]", "--name", "mine") == 130
    out, err = capsys.readouterr()
    assert [path.name for path in (here / "results").glob("*.json")] == ["tiny_L1_K4.json"]
    assert "unfinished" in out
    assert err.endswith(
        "\ninterrupted; continue with:  tune-cnn sweep tiny.yaml --set 'hidden_dims=[10, 10]' --name mine\n"
    )
    assert "lock.json" not in SweepFolder("ray_results", "mine").folder.names()


def test_an_interruption_after_the_last_trial_leaves_nothing_to_continue(here, runner, capsys):
    def interrupted(experiments: Sequence[Experiment], folder: SweepFolder, *_: object, **__: object) -> dict[str, str]:
        train(experiments, folder)
        raise KeyboardInterrupt

    runner(interrupted)
    assert run("sweep", "tiny.yaml") == 0
    assert len([*(here / "results").glob("*.json")]) == 2
    assert "interrupted" not in capsys.readouterr().err


def test_sigterm_while_results_are_written_interrupts_like_ctrl_c(here, runner, capsys, monkeypatch):
    runner(trains)
    monkeypatch.setattr("tune_cnn.report.figure_files.write_figures", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert run("sweep", "tiny.yaml") == 130
    assert capsys.readouterr().err.endswith("continue with:  tune-cnn sweep tiny.yaml\n")
    assert "lock.json" not in SweepFolder("ray_results", "tiny").folder.names()


def test_an_interruption_is_still_one_when_nothing_can_be_exported(here, runner, capsys):
    def interrupted(experiments: Sequence[Experiment], folder: SweepFolder, *_: object, **__: object) -> dict[str, str]:
        folder.folder.write("sweep.json", b"{")
        raise KeyboardInterrupt

    runner(interrupted)
    assert run("sweep", "tiny.yaml") == 130
    err = capsys.readouterr().err
    assert "sweep.json: damaged" in err
    assert err.endswith("continue with:  tune-cnn sweep tiny.yaml\n")


def test_a_command_that_is_not_resumed_is_just_interrupted(finished, monkeypatch, capsys):
    monkeypatch.setattr("tune_cnn.results.export_now", raising(KeyboardInterrupt()))
    assert run("export", "tiny") == 130
    assert capsys.readouterr().err == "\ninterrupted\n"
    monkeypatch.setattr(plan, "make_plan", raising(KeyboardInterrupt()))
    assert run("sweep", "tiny.yaml", "--dry-run") == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/disk/x.pt"), "/disk/x.pt: No space left on device; fix"),
        (OSError(errno.ENOSPC, "No space left on device"), "a file, perhaps in /tmp/x: No space left on device; fix"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied; fix that and try again"),
        (OSError("the bucket is gone"), "a file, perhaps in /tmp/x: the bucket is gone; fix that and try again"),
    ],
)
def test_a_full_disk_or_a_lost_storage_is_a_message(finished, runner, capsys, monkeypatch, error, message):
    monkeypatch.setenv("TMPDIR", "/tmp/x")
    runner(raising(error))
    assert run("sweep", "tiny.yaml") == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith(message)
    assert "Traceback" not in err


def test_a_disk_that_is_too_small_is_found_out_before_the_training_and_by_a_dry_run(here, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    assert run("sweep", "tiny.yaml") == 2
    assert "but only 0 MB are free; make room" in capsys.readouterr().err
    assert run("sweep", "tiny.yaml", "--dry-run") == 2
    assert "but only 0 MB are free; make room" in capsys.readouterr().err
    assert not (here / "ray_results").exists()


def test_a_dry_run_finds_out_that_the_storage_is_a_file(here, capsys):
    assert run("sweep", "tiny.yaml", "--dry-run", "--storage", "tiny.yaml") == 2
    assert capsys.readouterr().err.endswith("a part of this path is a file, not a folder; name another storage\n")


# One trial


def test_trial_trains_one_experiment_and_prints_its_accuracy(here, capsys):
    assert run("trial", "tiny.yaml", "tiny_L1_K6", "--set", "epochs=1", "--device", "cpu", "--threads", "1") == 0
    config, results, trial = load_result_file("results/tiny_L1_K6.json")
    assert (config["run_name"], config["filters_per_layer"], results.num_epochs) == ("tiny_L1_K6", [6], 1)
    out = capsys.readouterr().out
    assert f"Test Accuracy: {trial['test_accuracy']:.2f}\n" in out
    assert f"Test Loss: {trial['test_loss']:.3f}\n" in out
    assert out.endswith("*** Output file results/tiny_L1_K6.json written\n")
    assert not (here / "ray_results").exists()


@pytest.mark.parametrize("source", ["tiny", "ray_results/tiny"])
def test_trial_of_a_finished_sweep_is_identical(finished, capsys, source):
    assert run("trial", source, "tiny_L1_K4") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"identical: all 2 epochs are those of {finished}, bit for bit"


def test_trial_takes_a_sweep_before_the_shipped_file_of_its_name(finished, capsys, monkeypatch):
    finished.folder.local_path.rename("ray_results/quick")
    storage = Path("ray_results").absolute()
    assert run("trial", "quick", "tiny_L1_K4", "--storage", storage.as_uri()) == 0
    monkeypatch.chdir(storage)
    assert run("trial", "quick", "tiny_L1_K4") == 0
    assert capsys.readouterr().out.count("identical: all 2 epochs") == 2


def test_trial_of_a_sweep_takes_the_name_in_its_tables_and_says_what_a_missing_seed_does(here, runner, capsys):
    runner(trains)
    assert run("sweep", "tiny.yaml", "--set", "seed=null", "--set", "epochs=1") == 0
    label = next(word for word in capsys.readouterr().out.split() if word.startswith("K4_L1_"))
    assert run("trial", "tiny", label) == 1
    *_, first, same, why = capsys.readouterr().out.splitlines()
    assert first.startswith("different: the first difference is train_loss[0]")
    assert same == "device, CPU, threads and versions are the same"
    assert why == "that is why: its settings have no seed, so each training draws weights and orders of its own"


def test_trial_of_a_sweep_says_the_first_difference_and_what_may_have_caused_it(finished, capsys):
    settings = finished.experiments()["tiny_L1_K4"]
    path = finished.trial(settings).folder.local_path / "record.json"
    record = json.loads(path.read_text())
    true = record["results"]["train_loss"][3]
    record["results"]["train_loss"][3] = 9.5
    record["results"]["test_acc"][0] = 99.0
    path.write_text(json.dumps(record))
    assert run("trial", "tiny", "tiny_L1_K4") == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"different: the first difference is train_loss[3]: 9.5 and {true}",
        "device, CPU, threads and versions are the same",
    ]
    why = "that is why: another kind of machine rounds sums differently, which training amplifies"
    for facts, said in [
        ({"threads": "many"}, ["threads: many in the sweep, 1 here"]),
        ({"cpu": "EPYC 7551, AVX2"}, [f"cpu: EPYC 7551, AVX2 in the sweep, {cpu_kind()} here", why]),
        ({"device": "NVIDIA H100", "cpu": cpu_kind()}, ["device: NVIDIA H100 in the sweep, cpu here", why]),
    ]:
        path.write_text(json.dumps({**record, "trial": {**record["trial"], **facts}}))
        assert run("trial", "tiny", "tiny_L1_K4") == 1
        assert capsys.readouterr().out.splitlines()[-len(said) :] == said
    del record["trial"]["cpu"]  # as in a sweep of an older version
    path.write_text(json.dumps(record))
    assert run("trial", "tiny", "tiny_L1_K4") == 1
    assert "cpu" not in capsys.readouterr().out.splitlines()[-1]


# Results of a finished sweep


def test_export_names_the_files_and_what_is_missing(finished, capsys):
    experiments = finished.experiments()
    for name in ("record.json", "epoch_0002.pt"):
        finished.trial(experiments["tiny_L1_K6"]).folder.delete(name)
    finished.trial(experiments["tiny_L1_K6"]).save_failure("epoch 1: OSError", "Traceback")
    assert run("export", "tiny", "--out", "deep/er") == 0
    out, err = capsys.readouterr()
    assert out == "deep/er/tiny_L1_K4.json\n"
    assert err == "not exported: tiny_L1_K6: epoch 1: OSError\n"
    finished.trial(experiments["tiny_L1_K6"]).folder.delete("error.txt")
    assert run("export", "tiny", "--out", "deep/er") == 0
    assert capsys.readouterr().err == "without an epoch, so not exported: tiny_L1_K6\n"
    (finished.trial(experiments["tiny_L1_K4"]).folder.local_path / "record.json").write_bytes(b"")
    assert run("export", "tiny", "--out", "deep/er") == 2
    assert "record.json: damaged" in capsys.readouterr().err
    assert [path.name for path in Path("deep/er").iterdir()] == ["tiny_L1_K4.json"]


@pytest.mark.parametrize("pattern", ["tiny_*", "tiny_L1_K?.json", "*"])
def test_plot_draws_the_matching_results(finished, capsys, pattern):
    run("export", "tiny")
    capsys.readouterr()
    assert run("plot", pattern, "--out", "figures", "--format", "svg") == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("figures/tiny_L1.svg\n", "")
    assert "<svg" in Path("figures/tiny_L1.svg").read_text()


def test_plot_draws_each_search_under_its_sweeps_name_as_the_sweep_does(finished, capsys):
    search = {name: {"filters_per_layer": {"choice": [[4], [6]]}} for name in finished.experiments()}
    finished.save_experiments(finished.experiments(), search)
    run("export", "tiny")
    for path in Path("results").glob("*.json"):
        content = json.loads(path.read_text())
        content["config"]["run_name"] = path.stem.replace("tiny", "other")
        content["trial"]["sweep"] = "../other"
        path.with_stem(content["config"]["run_name"]).write_text(json.dumps(content))
    capsys.readouterr()
    assert run("plot") == 0
    assert capsys.readouterr() == ("results/results_search.png\nresults/tiny_search.png\n", "")


def test_plot_leaves_out_what_is_damaged_and_names_it(finished, capsys):
    run("export", "tiny")
    Path("results/broken.json").write_text("{")
    capsys.readouterr()
    assert run("plot") == 0
    out, err = capsys.readouterr()
    assert out == f"results/{FIGURE}\n"
    assert err.startswith("Left out: results/broken.json: damaged (")


def test_report_writes_a_page_markdown_and_a_table_with_what_they_show(finished, capsys):
    experiments = finished.experiments()
    finished.trial(experiments["tiny_L1_K6"]).folder.delete("record.json")
    assert run("report", "ray_results/tiny", "--out", "told") == 0
    assert capsys.readouterr().out == "told/tiny_report.html\ntold/tiny_report.md\ntold/tiny.csv\n"
    assert sorted(path.name for path in Path("told").iterdir()) == [
        "tiny.csv", FIGURE, "tiny_L1_K4.json", "tiny_L1_K6.json", "tiny_report.html", "tiny_report.md",
    ]  # fmt: skip
    assert f"![tiny_L1](<{FIGURE}>)" in Path("told/tiny_report.md").read_text()
    assert " (unfinished: 2 of 2 epochs) |\n" in Path("told/tiny_report.md").read_text()


def test_board_serves_the_trials_on_this_machine_only(finished, monkeypatch):
    started = []
    monkeypatch.setattr("tune_cnn.cli.commands.board._run", lambda command: started.append(command) or 0)
    assert run("board", "tiny", "--port", "6100") == 0
    assert started == [
        [
            sys.executable, "-P", "-m", "tensorboard.main", "--logdir", str(finished.trials),
            "--host", "127.0.0.1", "--port", "6100", "--reload_interval", "1",
        ]
    ]  # fmt: skip


def test_board_shows_a_large_sweep_where_tensorboard_draws_more_than_forty_trials(finished, monkeypatch, capsys):
    monkeypatch.setattr("tune_cnn.cli.commands.board._run", lambda _: 0)
    assert run("board", "tiny", "--port", "6100") == 0
    compared = "Depth and width compared: http://127.0.0.1:6100/?smoothing=0"
    assert capsys.readouterr().err == f"{compared}#custom_scalars&_smoothingWeight=0\n"
    for number in range(40):
        (finished.trials.local_path / f"K4_L{number}_12345678").mkdir()
    assert run("board", "tiny", "--port", "6100") == 0
    assert capsys.readouterr().err == f"{compared}&tagFilter=_by_#timeseries\n"


def test_board_ends_with_ctrl_c_and_passes_on_that_tensorboard_failed(finished, monkeypatch):
    monkeypatch.setattr("tune_cnn.cli.commands.board._run", raising(KeyboardInterrupt()))
    assert run("board", "tiny", "--port", "0") == 0
    monkeypatch.setattr("tune_cnn.cli.commands.board._run", lambda _: 1)
    assert run("board", "tiny", "--port", "0") == 1


def test_board_says_at_once_that_its_port_is_taken(finished, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run("board", "tiny", "--port", str(port)) == 2
    message = f"--port {port}: cannot be used ([Errno 98] Address already in use); name another"
    assert capsys.readouterr().err.startswith(message)
    assert run("board", "tiny", "--port", "70000") == 2
    assert capsys.readouterr().err.startswith("--port 70000: cannot be used (bind(): port must be 0-65535.); name")


def test_a_board_that_is_told_to_end_takes_tensorboard_along(finished):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, "-m", "tune_cnn", "board", "tiny", "--port", str(port)]) as board:
        try:
            wait_until(lambda: answers(port))
        finally:
            board.terminate()
    wait_until(lambda: not answers(port))
    assert board.returncode == 0


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


# Mistakes

FAULTY = """\
run_name: faulty_L{L}
grid: {layers_per_block: [], pool_every: 3}
settings: {learning_rate: 1.0e-3, epochs: ten, bs_train: 0, reg: -1}
data: cifar11
resources: {cpus_per_trial: 0, gpus: 1}
"""


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["sweep", "absent.yaml"], ["absent.yaml: 1 problem", "no such file; did you mean best?"]),
        (["sweep", "."], [".: 1 problem", "cannot be read (not a regular file); name another"]),
        (
            ["sweep", "tiny.yaml", "--set", "lr"],
            ["--set: 'lr' is not KEY=VALUE in one word; write one such as --set epochs=5"],
        ),
        (["sweep", "--set", "lr", "1", "tiny.yaml"], ["--set: 'lr' is not KEY=VALUE"]),
        (["trial", "tiny.yaml", "x", "--set", "lr", "1"], ["--set: 'lr' is not KEY=VALUE"]),
        (["sweep", "tiny.yaml", "--set", "early_stopping=", "5"], ["--set: 'early_stopping=' is not KEY=VALUE"]),
        (["sweep", "tiny.yaml", "--set", "epochs: 5"], ["'epochs: 5' is not KEY=VALUE"]),
        (["sweep", "tiny.yaml", "--set", "=5"], ["'=5' is not KEY=VALUE"]),
        (["sweep", "tiny.yaml", "--data", "cifar11"], ["data: 1 problem", "did you mean 'cifar10'?"]),
        (["sweep", "tiny.yaml", "--only", "*K5*"], ["only: 1 problem", "there are tiny_L1_K4, tiny_L1_K6"]),
        (["sweep", "tiny.yaml", "--name", "../up"], ["--name: 1 problem", "'../up' cannot be a name; use at most"]),
        (
            ["sweep", "my grid.yaml"],
            ["my grid.yaml: 2 problems", "'my grid' cannot be", "; rename the file, or give --name"],
        ),
        (
            ["sweep", "tiny.yaml", "absent.yaml", "--name", "", "--set", "lr=x", "--data", "x"],
            ["changed settings: 1 problem", "data: 1 problem", "absent.yaml: 1 problem"],
        ),
        (["sweep", "tiny.yaml", "--name", ".", "--set", "lr=x"], ["--name: 1 problem", "changed settings: 1 problem"]),
        (["sweep", "tiny.yaml", "--out", "file"], ["file: cannot be used (File exists); name another folder"]),
        (["sweep", "tiny.yaml", "--storage", "file"], ["file/tiny: a part of this path is a file, not a folder; name"]),
        (["sweep", "tiny.yaml", "--out", "file/x"], ["file/x: cannot be used (Not a directory)"]),
        (["sweep", "tiny.yaml", "--out", "/proc"], ["/proc: cannot be used ("]),
        (["sweep", "tiny.yaml", "--storage", "ftp://x"], ["ftp://x: this storage cannot be used (", "check the URI"]),
        (["trial", "absent.yaml", "x"], ["absent.yaml: 1 problem"]),
        (["trial", "tiny.yaml", "tiny_L1_K5"], ["tiny_L1_K5: no such experiment; there are tiny_L1_K4, tiny_L1_K6"]),
        (["trial", "tiny.yaml", "tiny_L1_K4", "--set", "lr=fast"], ["settings.lr: 'fast' is not a number above 0"]),
        (["trial", "tiny.yaml", "tiny_L1_K4", "--device", "abacus"], ["device: 'abacus' cannot be used"]),
        (["trial", "tiny.yaml", "tiny_L1_K4", "--out", "file"], ["file: cannot be used"]),
        (["trial", "absent", "x"], ["absent: no sweep here, and none of this name in ray_results; check the name"]),
        (["export", "absent"], ["absent: no sweep here", "(run one first, such as: tune-cnn sweep quick)"]),
        (["export", "../.."], ["../..: no sweep here"]),
        (["board", "absent", "--storage", "elsewhere"], ["none of this name in elsewhere; check the name, or the sto"]),
        (["plot", "results/a.json"], ["no result file matches results/a.json; check the name, as in 'exp1_1*'"]),
        (["plot", "exp*", "**", "/etc/*", "--results", "file"], ["file: no result file matches exp* ** /etc/*"]),
        ([], ["usage: tune-cnn", "sweep ", "train the experiments of config files"]),
        (["sweep"], ["the following arguments are required: FILE"]),
        (["swep", "tiny.yaml"], ["no such command: swep; did you mean sweep?"]),
        (["sweep"], ["Example:\n  tune-cnn sweep exp1_1 exp1_2", "All options: tune-cnn sweep --help"]),
        (["sweep", "tiny.yaml", "--fre"], ["unrecognized arguments: --fre"]),
        (["sweep", "tiny.yaml", "--epochs", "3"], ["a setting is changed by --set, such as --set epochs=3"]),
        (["sweep", "tiny.yaml", "--set", "grid.layers_per_block=[1,", "2]"], ["2]; a value with spaces needs quotes"]),
        (["sweep", "tiny.yaml", "--cpus", "0"], ["--cpus: '0' is not a whole number from 1 up"]),
        (["sweep", "tiny.yaml", "--gpus", "-1"], ["--gpus"]),
        (["trial", "tiny.yaml", "x", "--threads", "two"], ["--threads: 'two' is not a whole number from 1 up"]),
        (["plot", "--format", "bmp"], ["--format: invalid choice: 'bmp'"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_told_on_stderr_with_exit_code_2(here, capsys, arguments, messages):
    (here / "file").write_text("")
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    for message in messages:
        assert message in err
    assert not (here / "ray_results").exists()


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        (
            FAULTY,
            [
                "grid.layers_per_block: [] is not a", "grid.pool_every: 3 is not a list", "settings.learning_rate:",
                "settings.epochs: 'ten'", "settings.bs_train: 0", "settings.reg: -1", "data: 'cifar11'",
                "resources.cpus_per_trial: 0", "resources.gpus: unknown key",
            ],
        ),
        ("", ["empty; write at least run_name"]),
    ],
)  # fmt: skip
def test_all_the_faults_of_a_file_are_listed(here, capsys, content, problems):
    (here / "faulty.yaml").write_text(content)
    for arguments in (["sweep", "faulty.yaml", "--dry-run"], ["trial", "faulty.yaml", "x"]):
        assert run(*arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        first, *listed = err.splitlines()
        assert first == f"faulty.yaml: {len(problems)} problem" + "s" * (len(problems) > 1)
        assert len(listed) == len(problems)
        assert all(any(problem in line for line in listed) for problem in problems)


@pytest.mark.parametrize(
    ("damage", "arguments", "message"),
    [
        ("unfinished", ["trial", "tiny", "tiny_L1_K4"], "tiny_L1_K4: not finished in "),
        ("unfinished", ["export", "tiny"], "tiny: no experiment has an epoch yet, so there is nothing to export"),
        ("unfinished", ["report", "tiny"], "tiny: no experiment has an epoch yet, so there is nothing to report"),
        ("record", ["trial", "tiny", "tiny_L1_K4"], "record.json: damaged ("),
        ("record", ["export", "tiny"], "tiny: no experiment has an epoch yet"),
        ("manifest", ["export", "tiny"], "sweep.json: damaged ("),
        ("manifest", ["board", "tiny"], "sweep.json: damaged ("),
        ("manifest", ["sweep", "tiny.yaml"], "sweep.json: damaged ("),
        ("escape", ["export", "tiny"], "sweep.json: damaged ('../../escaped' cannot be a name"),
        ("escape", ["trial", "tiny", "../../escaped"], "sweep.json: damaged ('../../escaped' cannot be a name"),
        ("generation", ["export", "tiny"], "sweep.json: damaged (it names no folder of trials); delete it"),
        ("none", ["trial", "tiny", "tiny_L1_K9"], "tiny_L1_K9: no such experiment; there are tiny_L1_K4, tiny_L1_K6"),
        ("none", ["trial", "tiny", "tiny_L1_K4", "--set", "lr=1"], "--set and --data change a trial, but one of a swe"),
        ("none", ["trial", "tiny", "tiny_L1_K4", "--device", "abacus"], "device: 'abacus' cannot be used"),
        ("none", ["export", "tiny", "--out", "tiny.yaml"], "tiny.yaml: cannot be used (File exists)"),
    ],
)
def test_a_sweep_that_is_damaged_or_not_finished_is_told_on_stderr(finished, capsys, damage, arguments, message):
    experiments = finished.experiments()
    for settings in experiments.values():
        if damage == "unfinished":
            for name in ("record.json", "epoch_0002.pt"):
                finished.trial(settings).folder.delete(name)
        if damage == "record":
            finished.trial(settings).folder.write("record.json", b"{}")
    if damage == "manifest":
        finished.folder.write("sweep.json", b"\xff")
    if damage == "escape":
        finished.save_experiments({**experiments, "../../escaped": settings})
    if damage == "generation":
        manifest = json.loads(finished.folder.read("sweep.json"))
        finished.folder.write("sweep.json", json.dumps({**manifest, "trials": "../x"}).encode())
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert not Path("escaped.json").exists()


def test_plot_of_nothing_but_damaged_files_fails_and_names_each(here, capsys):
    results = here / "results"
    results.mkdir()
    (results / "a.json").write_text("{")
    (results / "b.json").mkdir()
    assert run("plot") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(": ")[2].partition(":")[0] for line in err.splitlines()[:-1]] == [
        "results/a.json", "results/b.json",
    ]  # fmt: skip
    assert err.splitlines()[-1] == (
        "results: nothing to draw in 2 files; plot needs result files with accuracies, such as tune-cnn export writes"
    )


# As a process


def test_a_reader_that_goes_away_is_no_error(finished, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # so that the output is written at the end
    with subprocess.Popen(
        [sys.executable, "-m", "tune_cnn", "export", "tiny"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert b"Error" not in process.stderr.read()
    assert process.returncode == 0
    assert len(list(Path("results").iterdir())) == 2


def test_a_log_gets_the_beginning_and_the_end_of_each_progress_bar(tmp_path):
    command = [sys.executable, "-m", "tune_cnn", "trial", "quick", "quick_K8_L2", "--set", "epochs=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    bars = [line for line in done.stderr.splitlines() if "it/s" in line]
    assert [re.split(r" \(Avg|:  ", line)[0] for line in bars] == [*["train_batch"] * 2, *["test_batch"] * 4]
    assert re.match(r"train_batch \(Avg. Loss [\d.]+, Accuracy [\d.]+\): 100%", bars[1])


@pytest.mark.parametrize("streams", ["<&- >&-", "2>&-", "2>/dev/full"])
def test_closed_streams_and_a_log_that_cannot_be_written_end_no_command(finished, streams):
    command = f'"$0" -m tune_cnn sweep tiny.yaml --dry-run {streams}'
    assert subprocess.run(["bash", "-c", command, sys.executable]).returncode == 0


def test_a_full_pipe_that_does_not_block_ends_no_command(here):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # as some programs leave the terminal that they share
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, bytes(1000)):
            pass
    command = [sys.executable, "-m", "tune_cnn", "diagnose", "tiny.yaml"]  # says on stderr what was found
    assert subprocess.run(command, stderr=writer).returncode == 0
    os.close(reader)
    os.close(writer)


def test_a_working_folder_that_was_deleted_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run("status", "tiny") == 2
    assert capsys.readouterr().err == (
        'the working folder cannot be found (No such file or directory); type: cd "$PWD", or go to another one\n'
    )


def test_a_user_without_a_home_folder_is_told_to_name_one(here, monkeypatch, capsys):
    def no_entry(uid):
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    assert run("sweep", "tiny.yaml") == 2
    assert capsys.readouterr().err == "this user has no home folder; name one: export HOME=/tmp\n"


def test_status_shows_every_trial_and_whether_somebody_runs_the_sweep(tmp_path, capsys):
    settings = {f"s_L{depth}": Settings(layers_per_block=depth, data=DataSettings("shapes")) for depth in (1, 2)}
    folder = SweepFolder(str(tmp_path), "s")
    folder.save_experiments(settings)
    assert main(["status", str(tmp_path / "s")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == [folder.trial(s).label for s in settings.values()]
    assert lines[-1] == "0/2 trials finished; nobody is running it"
    with locked(folder.folder):
        assert main(["status", "s", "--storage", str(tmp_path)]) == 0
    assert f"; process {os.getpid()} on " in capsys.readouterr().out
