"""A folder behaves alike on a local disk and through pyarrow, which stands for S3 and its like."""

import errno
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tune_cnn.errors import StorageError
from tune_cnn.sweep import folder as module
from tune_cnn.sweep.folder import Folder


@pytest.fixture(params=["local", "file://", "mock://"])
def folder(request, tmp_path: Path) -> Folder:
    """A folder that does not exist yet; `file://` and `mock://` take the way that S3 takes."""
    root = {"local": str(tmp_path), "file://": f"file://{tmp_path}", "mock://": f"mock://{tmp_path}"}[request.param]
    return Folder(root, "sweep")


def test_a_file_is_read_as_it_was_written_last(folder):
    folder.write("a.bin", b"first\0")
    folder.write("a.bin", b"second \xff\n")
    folder.write("empty", b"")
    assert (folder.read("a.bin"), folder.read("empty")) == (b"second \xff\n", b"")


def test_nothing_is_there_before_something_is_written(folder):
    assert folder.read("a.bin") is None
    assert (folder / "deeper").read("a.bin") is None
    assert folder.names() == []
    folder.delete("a.bin")
    folder.write("file", b"")
    assert (folder / "file").read("below a file") is None


def test_the_age_of_a_file_begins_when_it_is_written(folder):
    assert (folder / "deeper").age_s("a.bin") == float("inf")
    folder.write("a.bin", b"1")
    time.sleep(0.3)
    assert 0.2 < folder.age_s("a.bin") < 60


def test_names_are_those_of_files_and_folders_in_it_sorted(folder):
    for name in ("b", "a", "C"):
        folder.write(name, b"")
    (folder / "inner" / "deeper").write("not listed", b"")
    assert folder.names() == ["C", "a", "b", "inner"]
    assert (folder / "inner").names() == ["deeper"]


def test_a_deleted_file_is_gone_and_its_neighbour_stays(folder):
    folder.write("a", b"1")
    folder.write("b", b"2")
    folder.delete("a")
    folder.delete("a")
    assert (folder.names(), folder.read("a"), folder.read("b")) == (["b"], None, b"2")


def test_another_process_finds_the_same_folder(folder):
    folder.write("a", b"1")
    assert pickle.loads(pickle.dumps(folder)).read("a") == b"1"


def test_event_files_are_found_on_this_disk_and_no_others(folder):
    trials = folder / "trials"
    (trials / "one").write("events.out.tfevents.1", b"scalars")
    (trials / "one").write("epoch_0001.pt", b"weights")
    (trials / "two").write("record.json", b"{}")
    with trials.on_disk() as path:
        assert (path / "one" / "events.out.tfevents.1").read_bytes() == b"scalars"
        if not folder.is_local:  # a copy, which weights would only make slow
            assert [p.name for p in path.rglob("*") if p.is_file()] == ["events.out.tfevents.1"]
    assert path.exists() is folder.is_local


def test_the_name_for_people_keeps_the_query_of_a_uri_at_the_end():
    assert str(Folder("s3://bucket/path/?region=eu", "sweep") / "trials") == "s3://bucket/path/sweep/trials?region=eu"
    assert str(Folder("/data/sweeps", "a")) == "/data/sweeps/a"
    assert str(Folder("/data/why?", "a")) == "/data/why?/a"


def test_a_write_that_fails_leaves_the_old_content_and_no_other_file(tmp_path, monkeypatch):
    folder = Folder(str(tmp_path), "sweep")
    folder.write("record.json", b"old")

    monkeypatch.setattr(os, "replace", failing(errno.ENOSPC))
    with pytest.raises(
        StorageError, match=f"^{tmp_path}/sweep: the disk is full; make room, then run the same command"
    ):
        folder.write("record.json", b"new")
    assert (folder.names(), folder.read("record.json")) == (["record.json"], b"old")


def failing(*numbers: int) -> Callable[..., None]:
    """Raises one of these errors after the other, and the last one for ever."""
    left = list(numbers)

    def fail(*_: object, **__: object) -> None:
        number = left.pop(0) if left[1:] else left[0]
        if number:
            raise OSError(number, os.strerror(number))

    return fail


KINDS = [errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOSPC]


@pytest.mark.parametrize("number", KINDS)
def test_a_disk_that_fails_for_good_is_told_with_place_cause_and_remedy(tmp_path, monkeypatch, number):
    monkeypatch.setattr(Folder, "patience_s", 0.3)
    folder = Folder(str(tmp_path), "sweep") / "trials"
    folder.write("a", b"1")
    monkeypatch.setattr(module, "replace_file", failing(number))
    monkeypatch.setattr(module, "read_file", failing(number))
    for name in ("unlink", "iterdir"):
        monkeypatch.setattr(Path, name, failing(number))
    cause = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}.get(number)
    actions = {
        "read": lambda: folder.read("a"),
        "written": lambda: folder.write("a", b"2"),
        "deleted": lambda: folder.delete("a"),
        "listed": folder.names,
    }
    for done, action in actions.items():
        place = f"{tmp_path}/sweep/trials" + ("/a" if done != "listed" else "")
        told = f"{place}: cannot be {done} \\({os.strerror(number)}\\); fix that and try again; a sweep continues"
        if cause:
            told = f"{tmp_path}/sweep: {cause}; make room, then run the same command again to continue$"
        with pytest.raises(StorageError, match=f"^{told}"):
            action()
    monkeypatch.undo()
    assert folder.read("a") == b"1"


def test_a_storage_that_fails_for_a_moment_is_asked_again(tmp_path, monkeypatch):
    folder = Folder(str(tmp_path), "sweep")
    monkeypatch.setattr(module, "replace_file", failing(errno.ESTALE, errno.EIO, 0))
    folder.write("a", b"1")


def test_a_server_that_nobody_reaches_is_named_within_the_patience(monkeypatch):
    monkeypatch.setattr(Folder, "patience_s", 0.3)
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "no_proxy": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    folder = Folder("s3://bucket/all?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1", "sweep")
    begin = time.monotonic()
    with pytest.raises(
        StorageError, match=r"^s3://bucket/all/sweep/a\?end.*: cannot be read \(.*Could not connect to ser"
    ):
        folder.read("a")
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("uri", ["ftp://host/path", "s3:///no-bucket", "s3://two words/x"])
def test_storage_that_does_not_exist_is_named(uri):
    with pytest.raises(StorageError, match=rf"^{uri}: this storage cannot be used \(.+\); check the URI$"):
        Folder(uri, "sweep").names()
