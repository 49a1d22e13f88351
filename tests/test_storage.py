"""What lies in a sweep's folder: checkpoints, records, generations of trials; and what happens when it is damaged."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

from tune_cnn.errors import ResultError, StorageError
from tune_cnn.settings import DataSettings, Settings, parse_settings
from tune_cnn.sweep.folder import Folder
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trial_folder import TrialFolder
from tune_cnn.train_results import FitResult

SETTINGS = Settings(seed=42, filters_per_layer=(32, 64), layers_per_block=2, data=DataSettings(source="shapes"))
OTHER = Settings(seed=43)
RESULTS = FitResult(2, [2.3, 2.2], [10.0, 20.0], [2.3, float("nan")], [11.0, 12.0])
SUMMARY = {"id": SETTINGS.trial_id, "test_accuracy": 12.5, "stop_reason": "epochs"}


@pytest.fixture(params=["local", "mock://"])
def storage(request, tmp_path: Path) -> str:
    """Where sweeps lie: on the disk, or through pyarrow as on S3."""
    return str(tmp_path) if request.param == "local" else f"mock://{tmp_path}"


@pytest.fixture(params=["local", "file://"])
def trial(request, tmp_path: Path) -> TrialFolder:
    """The folder of a trial that has not begun."""
    root = str(tmp_path) if request.param == "local" else f"file://{tmp_path}"
    return TrialFolder(Folder(root, "sweep") / "trials", SETTINGS)


@pytest.fixture
def on_disk(trial: TrialFolder, tmp_path: Path) -> Path:
    """The same folder, for who damages its files."""
    return tmp_path / "sweep" / "trials" / trial.label


def state(epoch: int) -> dict[str, object]:
    return {"epoch": epoch, "weights": torch.full((100,), float(epoch))}


def resume(trial: TrialFolder) -> tuple[dict[str, object] | None, list[str]]:
    """The state that the trial continues from, and the warnings."""
    found: list[dict[str, object]] = []
    warnings = trial.resume(found.append)
    return (found[0] if found else None), warnings


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((100,), 3.0).numpy().tobytes()) + 50] ^= 1  # in a weight of epoch 3
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


# Names


def test_a_trial_has_a_short_name_that_tells_width_depth_and_id(trial):
    assert trial.label == f"K32-64_L2_{SETTINGS.trial_id}"
    many = Settings(filters_per_layer=tuple(range(64, 128)))
    assert len(TrialFolder(Folder("/x"), many).label) == 60 + 9


def test_files_lie_where_the_page_says(tmp_path):
    sweep = SweepFolder(str(tmp_path), "exp")
    sweep.save_experiments({"a": SETTINGS})
    sweep.trial(SETTINGS).save_checkpoint(7, state(7))
    sweep.trial(SETTINGS).save_failure("epoch 8: lost", "Traceback")
    sweep.trial(OTHER).finish(RESULTS, SUMMARY, state(2))
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == [
        "exp/sweep.json",
        f"exp/trials/K32-64_L2_{SETTINGS.trial_id}/epoch_0007.pt",
        f"exp/trials/K32-64_L2_{SETTINGS.trial_id}/error.txt",
        f"exp/trials/K64_L2_{OTHER.trial_id}/best.pt",
        f"exp/trials/K64_L2_{OTHER.trial_id}/record.json",
    ]


# Checkpoints


def test_a_trial_continues_from_its_newest_checkpoint_and_keeps_two(trial):
    assert resume(trial) == (None, [])
    for epoch in (1, 2, 3):
        trial.save_checkpoint(epoch, state(epoch))
    found, warnings = resume(trial)
    assert found["epoch"] == 3
    assert torch.equal(found["weights"], state(3)["weights"])
    assert warnings == []
    assert list(trial.checkpoints().values()) == ["epoch_0003.pt", "epoch_0002.pt"]


def test_the_ten_thousandth_epoch_is_newer_than_the_one_before(trial):
    for epoch in (9998, 9999, 10000, 10001):
        trial.save_checkpoint(epoch, state(epoch))
    assert list(trial.checkpoints().values()) == ["epoch_10001.pt", "epoch_10000.pt"]
    trial.save_checkpoint(9999, state(9999))
    trial.save_checkpoint(10000, state(10000))
    assert resume(trial)[0]["epoch"] == 10000
    assert list(trial.checkpoints().values()) == ["epoch_10000.pt", "epoch_9999.pt"]


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, empty])
def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(trial, on_disk, damage):
    for epoch in (2, 3):
        trial.save_checkpoint(epoch, state(epoch))
    damage(on_disk / "epoch_0003.pt")
    found, warnings = resume(trial)
    assert found["epoch"] == 2
    assert warnings == [f"{trial.folder}/epoch_0003.pt: damaged; the training continues from what was before it"]


def test_with_both_checkpoints_damaged_a_trial_begins_again_and_its_new_checkpoints_stay(trial, on_disk):
    for epoch in (6, 7):
        trial.save_checkpoint(epoch, state(epoch))
        truncate(on_disk / f"epoch_000{epoch}.pt")
    found, warnings = resume(trial)
    assert found is None
    assert [re.search(r"epoch_\d+", warning)[0] for warning in warnings] == ["epoch_0007", "epoch_0006"]
    trial.save_checkpoint(1, state(1))
    found, warnings = resume(trial)
    assert found["epoch"] == 1
    assert warnings == []


def test_a_checkpoint_that_does_not_fit_is_named_and_the_one_before_serves(trial):
    for epoch in (2, 3):
        trial.save_checkpoint(epoch, state(epoch))

    def load(found: dict[str, object]) -> None:
        if found["epoch"] == 3:
            raise ResultError("its optimizer is missing")

    fault = "does not fit (its optimizer is missing); the training continues from what was before it"
    assert trial.resume(load) == [f"{trial.folder}/epoch_0003.pt: {fault}"]


def test_what_a_killed_writer_left_is_deleted(trial, on_disk):
    trial.save_checkpoint(2, state(2))
    (on_disk / ".epoch_0003.pt.abc123.tmp").write_bytes(b"half")
    assert resume(trial)[0]["epoch"] == 2
    assert trial.folder.names() == ["epoch_0002.pt"]


# The end of a trial


def test_a_finished_trial_keeps_best_weights_record_and_events_only(trial):
    trial.save_checkpoint(1, state(1))
    trial.save_checkpoint(2, state(2))
    trial.save_failure("epoch 2: OSError: no", "Traceback")
    trial.folder.write("events.out.tfevents.1", b"")
    trial.folder.write(".best.pt.abc.tmp", b"half")
    assert not trial.is_finished()
    trial.finish(RESULTS, SUMMARY, state(2))
    assert trial.folder.names() == ["best.pt", "events.out.tfevents.1", "record.json"]
    assert trial.is_finished()
    results, summary = trial.record()
    assert results.first_difference(RESULTS) is None
    assert summary == SUMMARY


def test_the_state_after_the_last_epoch_is_kept_if_it_is_given_with_the_best_weights_beside_it(trial):
    trial.save_checkpoint(1, {**state(1), "best_weights": {"w": torch.ones(1)}})
    trial.finish(RESULTS, SUMMARY, {"w": torch.zeros(1)}, {**state(2), "best_weights": {"w": torch.zeros(1)}})
    assert trial.folder.names() == ["best.pt", "epoch_0002.pt", "record.json"]
    assert b"best_weights" not in trial.folder.read("epoch_0002.pt")
    found, _ = resume(trial)
    assert (found["epoch"], found["best_weights"]) == (2, {"w": torch.zeros(1)})


def test_a_record_is_strict_json_with_the_complete_settings(trial, on_disk):
    trial.finish(RESULTS, SUMMARY, state(2))
    record = json.loads((on_disk / "record.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert record["results"]["test_loss"] == [2.3, None]
    assert parse_settings(record["config"]) == SETTINGS


def test_a_trial_killed_between_record_and_tidying_is_finished_and_can_be_tidied(trial):
    trial.save_checkpoint(1, state(1))
    trial.finish(RESULTS, SUMMARY, state(2))
    trial.folder.write("epoch_0001.pt", b"")
    assert trial.is_finished()
    trial.forget_training(RESULTS.num_epochs)
    assert trial.folder.names() == ["best.pt", "record.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b"\xff\xfe", b"{}", b"[" * 100_000,
        b'{"config": {}, "results": {}}',
        b'{"config": {"seed": "x"}, "results": RESULTS}',
        b'{"config": {"reg": 1' + b"0" * 400 + b'}, "results": RESULTS}',
        b'{"config": {"data": {"source": []}}, "results": RESULTS}',
    ],
)  # fmt: skip
def test_a_damaged_record_is_named_and_its_trial_is_not_finished(trial, content):
    results = b'{"num_epochs": 0, "train_loss": [], "train_acc": [], "test_loss": [], "test_acc": []}'
    trial.folder.write("record.json", content.replace(b"RESULTS", results))
    assert not trial.is_finished()
    place = re.escape(f"{trial.folder}/record.json")
    with pytest.raises(ResultError, match=f"^{place}: damaged .*; the sweep's command runs the trial again$"):
        trial.record()


def test_a_record_of_another_trial_is_named_and_finishes_nothing(trial):
    other = TrialFolder(trial.folder / "elsewhere", OTHER)
    other.finish(RESULTS, SUMMARY, state(2))
    trial.copy_from(other, ["record.json"])
    assert not trial.is_finished()
    message = f"record.json: it is that of trial {OTHER.trial_id}; the sweep's command runs the trial again"
    with pytest.raises(ResultError, match=re.escape(f"{trial.folder}/{message}")):
        trial.record()


def test_why_a_trial_failed_is_known_until_it_gets_further(trial):
    assert trial.failure() is None
    trial.save_failure("epoch 3: OSError: no", "Traceback\n  lines")
    assert trial.failure() == "epoch 3: OSError: no"
    assert b"Traceback\n  lines" in trial.folder.read("error.txt")
    trial.save_checkpoint(2, state(2))  # on the way to epoch 3 again
    assert trial.failure() == "epoch 3: OSError: no"
    trial.save_checkpoint(3, state(3))
    assert trial.failure() is None
    trial.save_failure("its process was lost 4 times: killed", "")
    trial.save_checkpoint(4, state(4))
    assert trial.failure() is None


# The sweep


def test_experiments_are_read_back_as_they_were_asked_for(storage):
    asked = {"exp_K32-64_L2": SETTINGS, "twin": SETTINGS, "other": OTHER}
    SweepFolder(storage, "sweep").save_experiments(asked)
    assert SweepFolder(storage, "sweep").experiments() == asked
    assert list(SweepFolder(storage, "sweep").experiments()) == list(asked)


def test_starting_over_leaves_the_old_trials_and_takes_the_next_folder(storage):
    for number in ("trials", "trials-2", "trials-3"):
        sweep = SweepFolder(storage, "sweep")
        sweep.start_over()
        assert not sweep.trial(SETTINGS).is_finished()
        sweep.save_experiments({"a": SETTINGS})
        sweep.trial(SETTINGS).finish(RESULTS, SUMMARY, state(2))
        assert SweepFolder(storage, "sweep").trial(SETTINGS).is_finished()
        assert str(SweepFolder(storage, "sweep").trials) == f"{sweep}/{number}"
    assert sweep.folder.names() == ["sweep.json", "trials", "trials-2", "trials-3"]
    assert all((sweep.folder / t / sweep.trial(SETTINGS).label).read("record.json") for t in ("trials", "trials-2"))


def test_starting_over_before_anything_is_written_changes_nothing(storage):
    SweepFolder(storage, "sweep").save_experiments({"a": SETTINGS})
    SweepFolder(storage, "sweep").trial(SETTINGS).save_checkpoint(1, state(1))
    SweepFolder(storage, "sweep").start_over()  # as a dry run does
    assert SweepFolder(storage, "sweep").trial(SETTINGS).checkpoints() == {1: "epoch_0001.pt"}


def test_without_sweep_json_the_newest_trials_are_found(storage):
    sweep = SweepFolder(storage, "sweep")
    sweep.trial(SETTINGS).save_checkpoint(1, state(1))
    for _ in range(10):
        sweep.start_over()
        sweep.trial(SETTINGS).save_checkpoint(1, state(1))
    assert str(SweepFolder(storage, "sweep").trials) == f"{sweep}/trials-11"


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "{}", '{"trials": 5}', '{"trials": "../x", "experiments": {}}',
        '{"trials": "trials/../../x", "experiments": {}}', '{"trials": "trials-2\\n", "experiments": {}}',
    ],
)  # fmt: skip
def test_a_damaged_sweep_json_is_refused_before_anything_is_done(storage, content):
    SweepFolder(storage, "sweep").folder.write("sweep.json", content.encode())
    place = re.escape(f"{SweepFolder(storage, 'other').folder}".replace("other", "sweep"))
    with pytest.raises(
        StorageError, match=rf"^{place}/sweep\.json: damaged \(.*\); delete it and run the sweep's command again$"
    ):
        SweepFolder(storage, "sweep")


@pytest.mark.parametrize(
    "experiments",
    [
        None, [], {"a": 1}, {"a": {"seed": "x"}}, {"a": {"unknown": 1}}, {"a": {"lr": 10**400}},
        {"../a": {}}, {"a/b": {}}, {"/etc/a": {}}, {"": {}}, {"a..b": {}}, {"a\n": {}}, {".hidden": {}},
    ],
)  # fmt: skip
def test_experiments_that_are_none_or_whose_names_would_leave_the_folder_are_refused(tmp_path, experiments):
    content = json.dumps({"trials": "trials", "experiments": experiments})
    sweep = SweepFolder(str(tmp_path), "sweep")
    sweep.folder.write("sweep.json", content.encode())
    with pytest.raises(StorageError, match=rf"^{sweep}/sweep\.json: damaged \(.*\); delete it and run"):
        SweepFolder(str(tmp_path), "sweep").experiments()


# Finding a sweep


def test_a_sweep_is_found_by_path_name_and_uri(tmp_path, monkeypatch):
    SweepFolder(str(tmp_path / "ray_results"), "exp").save_experiments({"a": SETTINGS})
    SweepFolder(f"mock://{tmp_path}/far?x=1", "exp").save_experiments({"far": OTHER})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    here, far = f"{tmp_path}/ray_results/exp", f"mock://{tmp_path}/far/exp?x=1"
    for sweep, storage, found in [
        ("exp", "ray_results", here),
        ("ray_results/exp", "elsewhere", here),
        ("ray_results/exp/", "elsewhere", here),
        ("~/ray_results/exp", "elsewhere", here),
        (here, "elsewhere", here),
        (f"file://{here}", "elsewhere", here),
        (f"file:{here.replace('exp', '%65xp')}", "elsewhere", here),
        ("exp", f"file://{tmp_path}/ray_results", here),
        ("exp", f"mock://{tmp_path}/far?x=1", far),
        (far, "elsewhere", far),
        (f"mock://{tmp_path}/far/exp/?x=1", "elsewhere", far),
    ]:
        assert str(SweepFolder.find(sweep, storage)) == found, sweep
    assert list(SweepFolder.find(far, "elsewhere").experiments()) == ["far"]
    monkeypatch.chdir(here)
    assert str(SweepFolder.find(".", "elsewhere")) == here


@pytest.mark.parametrize("sweep", ["absent", "", "/", "~nobody-of-this-name/exp", "ray_results/file", "mock:///absent"])
def test_a_sweep_that_is_nowhere_is_a_storage_error(tmp_path, monkeypatch, sweep):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ray_results").mkdir()
    (tmp_path / "ray_results" / "file").write_text("")
    message = f"^{re.escape(sweep)}: no sweep here, and none .* in ray_results; check the name, or the storage"
    with pytest.raises(StorageError, match=message):
        SweepFolder.find(sweep, "ray_results")


def test_a_mistyped_sweep_is_answered_with_those_that_are_there(tmp_path):
    for name in ("exp1_1", "quick"):
        SweepFolder(str(tmp_path), name).save_experiments({})
    for asked, told in (("quik", "quick"), ("absent", "exp1_1, quick")):
        with pytest.raises(StorageError, match=rf"the storage \(there: {told}\)$"):
            SweepFolder.find(asked, str(tmp_path))
