"""Whatever stands in the files of a sweep, its commands use it, leave it out, or name it; never a traceback."""

import shutil
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from malformed import damaged, edited, run
from tiny_sweep import train, write_config

from tune_cnn.result_files import load_result_file
from tune_cnn.sweep.sweep_folder import SweepFolder


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the finished sweep `tiny`, whose experiment is `tiny_L1_K4`."""
    home = tmp_path_factory.mktemp("malformed")
    train(write_config(home)[:1], SweepFolder(str(home), "tiny"))
    return home


@pytest.fixture(scope="module")
def record(home: Path) -> tuple[Path, str]:
    (path,) = home.glob("tiny/trials/*/record.json")
    return path, path.read_text()


@pytest.fixture(scope="module")
def manifest(home: Path) -> tuple[Path, str]:
    path = home / "tiny" / "sweep.json"
    return path, path.read_text()


def damage(data: st.DataObject, file: tuple[Path, str]) -> None:
    path, good = file
    path.write_bytes(data.draw(edited(good) | damaged(good)))


@settings(max_examples=350, deadline=None)
@given(data=st.data())
def test_a_malformed_record_is_exported_as_what_it_says_or_left_out(home, record, data):
    damage(data, record)
    shutil.rmtree(home / "out", ignore_errors=True)  # what another record said would be told to be replaced
    exit_code, out, err = run("export", str(home / "tiny"), "--out", str(home / "out"))
    if exit_code == 0:
        assert load_result_file(Path(out.strip()))
        # Remarks, or that the checkpoint beside a record that cannot be read was used.
        unfinished = "unfinished, exported as they stand: tiny_L1_K4"
        assert all("record.json: " in line or line == unfinished for line in err.splitlines()), err
    else:
        assert exit_code == 2
        *_, last = err.splitlines()  # after remarks
        assert last == f"{home}/tiny: no experiment has an epoch yet, so there is nothing to export; run the sweep"
    record[0].write_text(record[1])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_malformed_list_of_experiments_is_shown_or_refused(home, manifest, data):
    damage(data, manifest)
    exit_code, out, err = run("status", str(home / "tiny"))
    if exit_code == 0:
        assert out.endswith(" trials finished; nobody is running it\n")
    else:
        assert exit_code == 2
        assert err.startswith(f"{home}/tiny/sweep.json: damaged (")
    manifest[0].write_text(manifest[1])


@pytest.mark.filterwarnings("ignore:Attempting to set identical")  # of Matplotlib, about accuracies such as 1e-309 %
@settings(max_examples=20, deadline=None, phases=set(Phase) - {Phase.shrink})  # which would take minutes
@given(data=st.data())
def test_a_malformed_record_is_reported_as_what_it_says_or_left_out(home, record, data):
    damage(data, record)
    exit_code, out, _ = run("report", str(home / "tiny"), "--out", str(home / "out"))
    assert exit_code in (0, 2)
    assert all(Path(line).is_file() for line in out.splitlines())
    record[0].write_text(record[1])
