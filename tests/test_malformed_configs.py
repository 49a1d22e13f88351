"""Whatever stands in a config file, the command plans it or tells its faults; never a traceback."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed import run
from ruamel.yaml import YAML

from tune_cnn.diagnosis import Diagnoses
from tune_cnn.sweep import plan, remarks

GRID = """\
run_name: exp_K{K}_L{L}
grid:
  filters_per_layer: [[32], [64, 128]]
  layers_per_block: [2, 4]
settings: {pool_every: 4, hidden_dims: [100]}
data: shapes
"""

TOKENS = [
    *"{}[]:,&*!|>'\"#%@`-?~\n\t \\\0", "- ", ": ", "? ", "<<: ", "&a ", "*a", "!!set ", "!!binary ", "---\n", "...\n",
    "%YAML 9\n", "null", "true", "yes", "1e999", ".nan", "-1", "0x", "0o9", "1_0", "99999999999999999999", "2020-01-01",
    "'", '"\\x', "\\U00110000", "{K}", "{", "grid", "lr", "run_name", "ycn", "{L!r}", "[[2], [3]]", "[]", "\ufeff",
    "\x85", "é", "\ud800",
]  # fmt: skip

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["auto", "shapes", "x{K}", "{S}", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["lr", "seed", "source"]), inner),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A folder; to diagnose and to time what is planned takes too long for so many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tune_cnn.diagnosis.diagnose_all", lambda *_, **__: Diagnoses({}, []))
        patch.setattr(remarks, "estimate", lambda *_, **__: ({}, "time: at most 0.0 s"))
        patch.setattr(plan, "check_disk", lambda *_: None)  # wide networks are planned on small disks too
        yield tmp_path_factory.mktemp("malformed")


def assert_planned_or_refused(folder: Path, text: str) -> None:
    path = folder / "any.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    storage = str(folder / "sweeps")
    exit_code, out, err = run("sweep", str(path), "--dry-run", "--set", "epochs=1", "--storage", storage)
    if exit_code == 0:
        assert " new\n" in out
        assert all(line.startswith("data: ") for line in err.splitlines())
    else:
        assert exit_code == 2
        assert err.startswith(f"{path}: ")
        assert out == ""


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(GRID)), st.integers(0, 8), st.sampled_from(TOKENS)), min_size=1, max_size=4)
)
def test_a_mutilated_file_is_planned_or_refused(folder: Path, edits: list[tuple[int, int, str]]) -> None:
    text = GRID
    for position, deleted, token in edits:
        text = text[:position] + token + text[position + deleted :]
    assert_planned_or_refused(folder, text)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["run_name", "grid", "settings", "data", "resources"], VALUES)))
def test_any_values_are_planned_or_refused(folder: Path, document: dict[str, Any]) -> None:
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(document, text)
    assert_planned_or_refused(folder, text.getvalue())
