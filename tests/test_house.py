"""The order of the house: who may import whom, what an import may do, and what stands at the top level."""

import ast
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tune_cnn"

# From the roof to the ground: a file imports only what stands below it, or beside it in its own line.
FLOORS = """
cli __main__
api
results
report bench
sweep
plot
experiments
diagnosis
trial
data
training
models
settings
rules
result_files
early_stopping
train_results
files
machine
waiting
texts
errors
"""
HEIGHT = {room: -number for number, line in enumerate(FLOORS.split("\n")) for room in line.split()}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def room(module: str) -> str:
    """`sweep` for `tune_cnn.sweep.sweep_folder`; nothing for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def own_imports(module: str) -> list[str]:
    return [target for target in imports(MODULES[module]) if target.split(".")[0] == "tune_cnn"]


def importers_of(package: str) -> set[str]:
    """The rooms in which a third party's package is imported."""
    return {room(module) for module, path in MODULES.items() for name in imports(path) if name.split(".")[0] == package}


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES} - {""} <= set(HEIGHT)


def test_imports_only_go_down():
    upwards = [
        f"{module} imports {target}"
        for module in MODULES
        for target in own_imports(module)
        if room(target) and HEIGHT[room(target)] > HEIGHT[room(module)]
    ]
    assert upwards == []


def test_imports_never_go_round():
    TopologicalSorter({module: own_imports(module) for module in MODULES}).prepare()  # raises CycleError


def test_the_package_itself_imports_nothing_that_python_has_not_imported_already():
    assert list(imports(PACKAGE / "__init__.py")) == ["importlib", "os", "sys"]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["-m", "tune_cnn.plot"], "tune_cnn.plot: a module for Python programs, no command; type: tune-cnn plot"),
        (["-Pmtune_cnn.sweep", "tiny.yaml"], "type: tune-cnn sweep"),
        (["-X", "utf8", "-m", "tune_cnn.cli.commands.board", "tune_cnn.x"], "type: tune-cnn board"),
        (["-m", "tune_cnn.diagnosis.signal"], "type: tune-cnn --help"),
        (["-m", "tune_cnn", "no-command", "tune_cnn.plot"], "no such command: no-command; did you mean "),
        (["-m", "tune_cnn.__main__", "no-command"], "no such command: no-command; did you mean "),
    ],
)
def test_a_module_that_is_run_says_which_command_there_is(arguments, answer):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert answer in done.stderr


def test_the_check_of_imports_sees_them():
    """Otherwise the tests here would pass for that reason alone."""
    assert {"tune_cnn.models", "tune_cnn.data", "torch"} <= set(imports(PACKAGE / "trial.py"))
    assert "tune_cnn.report.figure_files" in imports(PACKAGE / "results.py")  # within a function
    assert room("tune_cnn.sweep.sweep_folder") == "sweep"
    assert HEIGHT["cli"] > HEIGHT["sweep"] > HEIGHT["errors"]


def test_only_the_sweep_knows_ray():
    assert importers_of("ray") == {"sweep"}


def test_only_plot_and_report_know_matplotlib():
    assert "plot" in importers_of("matplotlib") <= {"plot", "report"}


def test_commands_say_what_they_say_through_one_function():
    """Which lets no text of a file steer the terminal."""
    printing = {
        module
        for module, path in MODULES.items()
        if room(module) in ("cli", "sweep", "report", "plot", "result_files", "waiting")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing == set()


def test_importing_says_and_leaves_nothing(tmp_path):
    modules = [module for module in MODULES if not module.endswith("__main__")]
    done = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(modules)}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(tmp_path) == []


# The command line's help


def test_help_imports_neither_torch_nor_ray():
    program = (
        "import sys; from tune_cnn.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit:\n"
        "    print('heavy:', [m for m in ('torch', 'ray', 'numpy', 'matplotlib', 'pydantic') if m in sys.modules])"
    )
    for arguments in (["--help"], ["sweep", "--help"], ["--version"], ["sweep"]):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize(
    "command",
    [[sys.executable, "-m", "tune_cnn"], [os.path.join(sysconfig.get_path("scripts"), "tune-cnn")]],
    ids=["python -m tune_cnn", "tune-cnn"],
)
def test_help_answers_at_once(command):
    durations_s = []
    for _ in range(3):
        with subprocess.Popen([*command, "--help"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            shown = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        assert shown.startswith("usage: tune-cnn ")
        durations_s.append(usage.ru_utime + usage.ru_stime)
    assert min(durations_s) < 0.5


# The top level


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout, so what is tracked cannot be told")
def test_only_the_agreed_entries_stand_at_the_top():
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    top = {name.partition("/")[0] for name in listed}
    assert {name for name in top if not name.startswith(".")} <= {
        "tune_cnn", "configs", "tests", "ray_results", "pyproject.toml", "README.md", "LICENSE"
    }  # fmt: skip
    assert [name for name in listed if name.startswith("ray_results/")] == ["ray_results/.gitkeep"]
