import hashlib
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from tune_cnn import data
from tune_cnn.data import ImageSet, describe, first_images, load, resolve
from tune_cnn.data.batches import Batches, evaluation_batches
from tune_cnn.errors import DataError
from tune_cnn.experiments import train
from tune_cnn.settings import SOURCES, DataSettings, Settings

SHAPES = DataSettings("shapes", in_size=(3, 16, 16), train_images=100, test_images=20)


@pytest.fixture
def image_set() -> ImageSet:
    """53 read-only images, as Ray hands them out; each is filled with its own number."""
    numbers = np.arange(53)
    images = np.broadcast_to(numbers[:, None, None, None], (53, 4, 5, 3)).astype(np.uint8)
    images.flags.writeable = False
    return ImageSet(images, numbers % 10)


# The split


def test_split_is_that_of_scikit_learn():
    train, validation = data.split(50_000)
    assert (len(train), len(validation)) == (42_500, 7_500)
    # From numpy.random.RandomState(0).permutation(50_000), on which train_test_split rests.
    assert validation[:5].tolist() == [11841, 19602, 45519, 25747, 42642]
    assert train[:5].tolist() == [9606, 32949, 11441, 27973, 883]
    assert sorted([*train, *validation]) == list(range(50_000))


def test_validation_share_is_rounded_up_as_scikit_learn_does():
    assert [len(data.split(count)[1]) for count in (2, 19, 20, 21, 100, 101)] == [1, 3, 3, 4, 15, 16]


# Batches


def assert_same_passes(image_set: ImageSet, ours: list[DataLoader], theirs: list[DataLoader]) -> None:
    """Run through pairs of loaders with the same seed; batches and the random state afterwards are equal."""
    torch.manual_seed(7)
    expected = [[labels for _, labels in loader] for loader in theirs]
    expected_state = torch.random.get_rng_state()
    torch.manual_seed(7)
    assert [[images[:, 0, 0, 0].tolist() for images, _ in loader] for loader in ours] == [
        [labels.tolist() for labels in run] for run in expected
    ]
    assert torch.equal(torch.random.get_rng_state(), expected_state)


def test_batches_draw_the_order_and_the_random_state_of_a_plain_loader(image_set):
    plain = TensorDataset(torch.zeros(53), torch.arange(53))
    train, validation = Batches(image_set, 8, shuffle=True), evaluation_batches(image_set, 5, at_least=5)
    plain_train, plain_validation = DataLoader(plain, 8, shuffle=True), DataLoader(plain, 5)
    assert_same_passes(image_set, [train, validation] * 3, [plain_train, plain_validation] * 3)


def test_a_pass_cut_short_draws_no_less_than_a_whole_one(image_set):
    short = Batches(image_set, 8, shuffle=True, max_batches=2)
    torch.manual_seed(7)
    cut = [[images[:, 0, 0, 0].tolist() for images, _ in short] for _ in range(3)]
    state = torch.random.get_rng_state()
    whole = Batches(image_set, 8, shuffle=True)
    torch.manual_seed(7)
    assert cut == [[images[:, 0, 0, 0].tolist() for images, _ in whole][:2] for _ in range(3)]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_length_is_the_number_of_batches(image_set):
    assert len(Batches(image_set, 8)) == 7 == len(list(Batches(image_set, 8)))
    assert len(Batches(image_set, 8, max_batches=3)) == 3 == len(list(Batches(image_set, 8, max_batches=3)))
    assert len(Batches(image_set, 8, max_batches=100)) == 7


def test_a_batch_is_channels_last_bytes_and_whole_numbers(image_set):
    images, labels = next(iter(Batches(image_set, 8)))
    assert (images.shape, images.dtype) == ((8, 3, 4, 5), torch.uint8)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (labels.tolist(), labels.dtype) == ([0, 1, 2, 3, 4, 5, 6, 7], torch.int64)


def test_writing_into_a_batch_leaves_the_shared_images_alone(image_set):
    images, _ = next(iter(Batches(image_set, 8)))
    images.fill_(255)
    assert image_set.images[:8, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_evaluation_computes_many_images_at_once_but_reports_losses_for_few(image_set):
    loader = evaluation_batches(image_set, 12, at_least=30)
    assert [len(labels) for _, labels in loader] == [36, 17]
    assert loader.loss_batch_size == 12
    assert [len(labels) for _, labels in evaluation_batches(image_set, 40, at_least=30)] == [40, 13]


# Shapes


def test_shapes_are_the_same_bytes_for_the_same_seed():
    train = load(replace(SHAPES, train_images=20)).train
    again = load(replace(SHAPES, train_images=20)).train
    assert np.array_equal(train.images, again.images)
    assert not np.array_equal(train.images, load(replace(SHAPES, train_images=20, seed=1)).train.images)


def test_shapes_never_change():
    """Another drawing would be another training under the same trial id."""
    images, labels = data.shapes.draw(20, 32, 32, seed=0, stream=0)
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:16] == "286c39af94bcc8d4"


def test_shapes_for_testing_are_not_those_for_training():
    images = load(replace(SHAPES, train_images=100, test_images=100))
    seen = {image.tobytes() for image in [*images.train.images, *images.validation.images]}
    assert not seen & {image.tobytes() for image in images.test.images}


def test_shapes_fill_in_their_counts_and_take_no_path():
    resolved = resolve(DataSettings("shapes", path="ignored", classes=3, fingerprint="x"))
    assert resolved == DataSettings("shapes", train_images=5_000, test_images=1_000, classes=10)


@pytest.mark.parametrize("size", [(8, 8), (9, 20), (64, 40)])
def test_shapes_come_in_any_size_and_every_class(size):
    images = load(replace(SHAPES, in_size=(3, *size)))
    assert images.train.images.shape == (85, *size, 3)
    assert images.test.images.shape == (20, *size, 3)
    assert len(images.classes) == 10
    assert np.bincount(images.test.labels).tolist() == [2] * 10
    assert images.train.images.flags.c_contiguous
    assert images.train.images.dtype == np.uint8
    assert images.train.labels.dtype == np.int64


def test_too_small_shapes_are_refused():
    with pytest.raises(DataError, match=r"in_size: \[3, 7, 8\] is too small to draw shapes; take \[3, 8, 8\] or more"):
        resolve(replace(SHAPES, in_size=(3, 7, 8)))


def test_a_linear_model_cannot_tell_shapes():
    images = load(DataSettings("shapes", in_size=(3, 16, 16), train_images=2_000, test_images=500))
    train, test = (set_.images.mean(axis=3).reshape(set_.count, -1) for set_ in (images.train, images.test))
    weights = np.linalg.lstsq(train, np.eye(10)[images.train.labels])[0]
    assert ((test @ weights).argmax(1) == images.test.labels).mean() < 0.3


# A folder of images


def test_a_folder_is_read_in_the_order_of_its_names(image_folder):
    images = load(DataSettings("image_folder", str(image_folder), in_size=(3, 6, 5)))
    assert images.classes == ("blue", "green", "red")
    assert images.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.test.images.shape == (6, 6, 5, 3)
    # One colour each, so that resizing keeps it.
    assert images.test.images[:, 0, 0].tolist() == [
        [0, 0, 250], [1, 0, 250], [0, 240, 0], [1, 240, 0], [230, 0, 0], [230, 1, 0]
    ]  # fmt: skip
    order = np.random.RandomState(0).permutation(24)
    assert images.validation.labels.tolist() == (order[:4] // 8).tolist()
    assert images.train.labels.tolist() == (order[4:] // 8).tolist()


def test_a_folder_is_known_by_its_content_and_not_by_its_place(image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "moved")
    here = resolve(DataSettings("image_folder", str(image_folder)))
    there = resolve(DataSettings("image_folder", str(tmp_path / "moved")))
    assert here.classes == 3
    assert here.fingerprint == there.fingerprint
    assert Settings(data=here).trial_id == Settings(data=there).trial_id
    (tmp_path / "moved/test/red/000.png").rename(tmp_path / "moved/test/red/999.png")
    assert resolve(there).fingerprint != here.fingerprint


def test_a_path_may_start_at_home_and_becomes_absolute(image_folder, empty_home, monkeypatch):
    image_folder.rename(empty_home / "colours")
    monkeypatch.chdir(empty_home)
    assert resolve(DataSettings("image_folder", "~/colours")).path == str(empty_home / "colours")
    assert resolve(DataSettings("image_folder", "colours")).path == str(empty_home / "colours")


def test_images_are_decoded_once(image_folder, empty_home):
    settings = resolve(DataSettings("image_folder", str(image_folder)))
    first = load(settings)
    assert len(list((empty_home / ".cache/tune_cnn/images").glob("*.npy"))) == 1
    for path in image_folder.rglob("*.png"):
        keep = path.stat()
        path.write_bytes(b"x" * keep.st_size)  # would fail if it were decoded again
        os.utime(path, ns=(keep.st_atime_ns, keep.st_mtime_ns))
    again = load(settings)
    assert np.array_equal(first.train.images, again.train.images)
    assert np.array_equal(first.test.images, again.test.images)


def test_an_edited_image_is_decoded_again(image_folder):
    settings = DataSettings("image_folder", str(image_folder), in_size=(3, 8, 8))
    path = image_folder / "test/blue/000.png"
    Image.new("RGB", (12, 10), (0, 0, 9)).save(path.with_suffix(".bmp"))
    path.unlink()
    assert load(settings).test.images[0, 0, 0].tolist() == [0, 0, 9]
    Image.new("RGB", (12, 10), (7, 7, 7)).save(path.with_suffix(".bmp"))  # of the same size in bytes
    os.utime(path.with_suffix(".bmp"), (1, 1))
    assert load(settings).test.images[0, 0, 0].tolist() == [7, 7, 7]


@pytest.mark.parametrize("damage", [b"", b"no array", "half"])
def test_a_damaged_cache_is_decoded_again(image_folder, empty_home, damage):
    settings = DataSettings("image_folder", str(image_folder))
    first = load(settings)
    caches = list((empty_home / ".cache/tune_cnn/images").glob("*.npy"))
    whole = [cache.read_bytes() for cache in caches]
    for cache, content in zip(caches, whole, strict=True):
        cache.write_bytes(content[: len(content) // 2] if damage == "half" else damage)
    assert np.array_equal(load(settings).train.images, first.train.images)
    assert [cache.read_bytes() for cache in caches] == whole


def test_a_cache_that_cannot_be_written_is_done_without(image_folder, empty_home):
    (empty_home / ".cache").write_text("a file where a folder should be")
    assert load(DataSettings("image_folder", str(image_folder))).test.count == 6


def test_caches_go_where_the_desktop_standard_says(image_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    load(DataSettings("image_folder", str(image_folder)))
    assert len(list((tmp_path / "elsewhere/tune_cnn/images").iterdir())) == 1


def test_progress_of_decoding_is_shown_on_stderr(image_folder, capsys):
    load(DataSettings("image_folder", str(image_folder), in_size=(3, 9, 9)))
    assert capsys.readouterr() == ("", "")
    load(DataSettings("image_folder", str(image_folder)), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "decoding images: 100%" in err
    assert "30/30" in err


def test_fewer_images_are_the_same_ones_each_time_in_their_order(image_folder):
    settings = DataSettings("image_folder", str(image_folder), train_images=20, test_images=3)
    whole, few = load(replace(settings, train_images=None, test_images=None)), load(settings)
    chosen = sorted(np.random.RandomState(0).permutation(6)[:3])
    assert np.array_equal(few.test.images, whole.test.images[chosen])
    assert (few.train.count, few.validation.count) == (17, 3)


@pytest.mark.parametrize(("key", "count"), [("train_images", 24), ("test_images", 6)])
def test_more_images_than_there_are_is_an_error_before_any_is_decoded(image_folder, key, count):
    settings = DataSettings("image_folder", str(image_folder), **{key: 25})
    with pytest.raises(DataError, match=rf"colours: data.{key} asks for 25 of {count} images; ask for {count} at most"):
        resolve(settings)


# What is in a folder beside its images, and what is wrong with it


def save(path: Path, image: Image.Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def add_hidden(root: Path) -> None:
    for folder in ("train/.ipynb_checkpoints", "train/red/.ipynb_checkpoints", "test/__MACOSX", "train/@eaDir/x"):
        shutil.copytree(root / "train/blue", root / folder)
    shutil.copy(root / "train/red/000.png", root / "train/red/._000.png")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep"):
        (root / "train/red" / name).write_bytes(b"x")
    (root / "train/red/.#000.png").symlink_to("nowhere")


def test_hidden_files_and_folders_are_neither_images_nor_classes(image_folder):
    settings = resolve(DataSettings("image_folder", str(image_folder)))
    add_hidden(image_folder)
    assert resolve(settings) == settings
    line = describe(resolve(settings))
    assert "3 classes (blue, green, red); 20 images to train, 4 to validate, 6 to test; left out: 6 hidden (" in line
    assert ".ipynb_checkpoints" in line


def test_the_line_about_the_images_says_what_is_used_and_what_is_left_out(image_folder):
    settings = DataSettings("image_folder", str(image_folder))
    classes = f"data: image_folder {image_folder}: 3 classes (blue, green, red); "
    assert describe(settings) == classes + "20 images to train, 4 to validate, 6 to test"
    (image_folder / "labels.csv").write_text("x")
    (image_folder / "test/red/notes.txt").write_text("x")
    (image_folder / "test/red/photo.HEIC").write_text("x")
    (image_folder / "train/red/around").symlink_to(image_folder / "train/red")
    shutil.copytree(image_folder / "test", image_folder / "val")
    os.mkfifo(image_folder / "train/red/pipe.png")  # which would block whoever opens it
    assert describe(replace(settings, train_images=23, test_images=6)) == (
        f"{classes}19 images to train, 4 to validate, 6 to test; left out: 1 train image, by data.train_images, "
        "the folder val, 4 other than images (.csv, .heic, .png and 1 more)"
    )
    assert load(settings).test.count == 6


def test_folders_inside_the_classes_belong_to_them(image_folder):
    before = resolve(DataSettings("image_folder", str(image_folder)))
    for path in (image_folder / "train/red").glob("*.png"):
        save(image_folder / "train/red" / ("day" if path.stem < "004" else "night") / path.name, Image.open(path))
        path.unlink()
    after = resolve(before)
    assert (after.classes, data.count_images(after)) == (3, (20, 4, 6))


def test_every_source_has_its_settings_and_its_images():
    assert set(data.SOURCES) == set(SOURCES)


def test_other_images_know_their_counts():
    assert describe(DataSettings()) == (
        "data: cifar10: 10 classes; 42,500 images to train, 7,500 to validate, 10,000 to test"
    )
    assert "data: shapes: 10 classes (circle, ring, square, frame, triangle and 5 more); 85 images" in describe(SHAPES)
    assert "; left out: 49,000 train images, by data.train_images" in describe(DataSettings(train_images=1_000))


def test_a_folder_is_listed_once_to_plan_with_it(image_folder, monkeypatch):
    settings = resolve(DataSettings("image_folder", str(image_folder)))
    monkeypatch.setattr("tune_cnn.data.image_folder.list_folder", pytest.fail)
    assert data.nbytes(settings) == 30 * (32 * 32 * 3 + 8)
    assert "3 classes" in describe(settings)


def test_names_of_any_language_and_none(image_folder):
    (image_folder / "train/red").rename(image_folder / "train/färg 赤")
    (image_folder / "test/red").rename(image_folder / "test/färg 赤")
    for part in ("train", "test"):
        (image_folder / part / "blue").rename(image_folder / part / "bl\udce5")  # å in Latin-1
    assert load(resolve(DataSettings("image_folder", str(image_folder)))).classes == ("bl\ufffd", "färg 赤", "green")


def test_linked_images_are_images(image_folder, tmp_path):
    settings = resolve(DataSettings("image_folder", str(image_folder)))
    (image_folder / "train/red").rename(tmp_path / "elsewhere")
    (image_folder / "train/red").symlink_to(tmp_path / "elsewhere")
    assert resolve(settings) == settings
    (image_folder / "test/blue/000.png").rename(tmp_path / "image.png")
    (image_folder / "test/blue/000.png").symlink_to(tmp_path / "image.png")
    assert load(settings).test.count == 6


def test_a_rerun_on_a_folder_that_changed_is_refused(image_folder):
    planned = Settings(data=resolve(DataSettings("image_folder", str(image_folder), in_size=(3, 8, 8))))
    (image_folder / "train/red/000.png").unlink()
    with pytest.raises(DataError, match="not the images that the training was planned with"):
        train(planned)


def test_all_broken_images_are_named_at_once(image_folder):
    settings = DataSettings("image_folder", str(image_folder))
    path = image_folder / "train/green/003.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    with pytest.raises(DataError, match=r"1 of 30 images cannot .*, or take them out:\n  .*/train/green/003\.png: "):
        load(settings)
    (image_folder / "train/red/000.png").write_bytes(b"")
    (image_folder / "test/red/000.png").write_text("no image at all")
    with pytest.raises(DataError) as caught:
        load(settings)
    first, *lines = str(caught.value).splitlines()
    assert first == "3 of 30 images cannot be decoded; repair them, or take them out:"
    train, test = (f"  {image_folder}/{part}/red/000.png" for part in ("train", "test"))
    assert [line.partition(": UnidentifiedImageError: ")[0] for line in lines[1:]] == [train, test]
    assert lines[0].startswith(f"  {path}: ")


def test_a_decompression_bomb_is_refused(image_folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10 * 12)
    save(image_folder / "test/red/huge.png", Image.new("L", (100, 100)))
    with pytest.raises(DataError, match=r"test/red/huge\.png: .*could be decompression bomb"):
        load(DataSettings("image_folder", str(image_folder), train_images=20))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("rm -r ../colours", "colours: there is no such folder; check the path of image_folder"),
        ("rm -r ../colours; touch ../colours", "colours: a file, not a folder; unpack it"),
        ("rm -r test", "colours/test: there is no such folder; .*/colours must hold .*, and holds only train$"),
        (
            "mv train Train; mv test valid",
            "colours/train: there is no such folder; .*, and holds only Train, valid\n.*colours/test: there is no such",
        ),
        ("mkdir colours; mv train test colours", "colours must hold train/ and test/, and holds only colours\n"),
        ("rm -r train/*", "colours/train: it holds nothing; it must hold one folder of images for each class"),
        (
            "for i in train/red/*; do mv $i ${i%.png}.heic; done",
            r"colours/train: no images that can be decoded in red; fill or remove what is empty",
        ),
        (
            "rm -r test/red",
            "train/ and test/ do not have the same classes: only train/ has red; give every class a folder",
        ),
        (
            "rm -r */blue */green",
            "colours/train: it holds red; it must hold one folder of images for each class, two or more",
        ),
        (
            "for i in train test; do mkdir -p moved/set; mv $i moved/set/images; mv moved $i; done",
            "colours/train: it holds set; .*; move the folders blue, green, red up into it",
        ),
        ("mv train/red/* train", "colours/train: 8 images directly in it; move each into the folder of its class"),
        (
            "for i in train test; do for k in red blue; do mkdir p; mv $i/$k/* p; mv p $i/$k; done; done;"
            "for i in train test; do mkdir -p moved/set; mv $i moved/set/images; mv moved $i; done",
            "colours/train: it holds set; .*; move the folders blue, green, red up into it",
        ),
        (
            "mv train/red $(printf 'train/caf\\303\\251'); mv test/red $(printf 'test/cafe\\314\\201')",
            r"only train/ has 'caf\\xe9', only test/ has 'cafe\\u0301'; give every class",
        ),
        (
            "ln -s nowhere train/grey; ln -s circle.png train/red/circle.png",
            "2 broken links: .*; repair or remove each",
        ),
    ],
)
def test_an_unfit_folder_is_explained(image_folder, spoil, message):
    subprocess.run(spoil, shell=True, cwd=image_folder, check=True)
    with pytest.raises(DataError, match=message):
        resolve(DataSettings("image_folder", str(image_folder)))


def test_a_folder_that_must_not_be_read_is_named(image_folder, monkeypatch):
    def refuse(path: str) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"colours: cannot be read \(Permission denied\); make it readable, or take it"):
        resolve(DataSettings("image_folder", str(image_folder)))


# What is decoded


def decoded(folder: Path, *images: Image.Image, suffix: str = ".png", **options: object) -> np.ndarray:
    """What training gets of images that are saved as test images, (N, 8, 8, 3)."""
    for index, image in enumerate(images):
        save(folder / f"test/blue/x{index}{suffix}", image, **options)
    return load(DataSettings("image_folder", str(folder), in_size=(3, 8, 8))).test.images[2 : 2 + len(images)]


def grey(values: object, dtype: str) -> Image.Image:
    """A picture (8, 8) whose left half has the first value, its right half the second."""
    return Image.fromarray(np.repeat(np.array(values, dtype), 4)[None].repeat(8, axis=0))


@pytest.mark.parametrize(
    ("dtype", "values", "suffix"),
    [
        ("uint16", [[0, 65535], [13107, 26214]], ".png"),
        ("uint16", [[0, 4095], [819, 1638]], ".tif"),  # 12 bits
        ("uint16", [[0, 65535], [13107, 26214]], ".pgm"),
        (">u2", [[0, 65535], [13107, 26214]], ".tif"),
        ("int32", [[-1000, 4000], [0, 1000]], ".tiff"),
        ("float32", [[0.0, 1.0], [0.2, 0.4]], ".tif"),
        ("float32", [[-1e38, 3e38], [-2e37, 6e37]], ".tif"),
    ],
)
def test_deep_grey_images_are_scaled_by_the_range_of_all(image_folder, dtype, values, suffix):
    images = decoded(image_folder, *(grey(pair, dtype) for pair in values), suffix=suffix)
    assert images[:, 0, [0, -1]].tolist() == [[[0] * 3, [255] * 3], [[51] * 3, [102] * 3]]


def test_deep_images_to_train_and_to_test_have_one_range(image_folder):
    save(image_folder / "train/blue/bright.png", grey([0, 40_000], "uint16"))
    save(image_folder / "train/blue/floats.tif", grey([0.0, 0.5], "float32"))
    assert decoded(image_folder, grey([8_000, 0], "uint16"))[0, 0, [0, -1], 0].tolist() == [51, 0]


def test_where_nothing_was_measured_is_black(image_folder):
    images = decoded(image_folder, grey([np.nan, 3.0], "float32"), grey([1.0, np.inf], "float32"), suffix=".tif")
    assert images[:, 0, [0, -1], 0].tolist() == [[255, 255], [0, 0]]


def test_flat_deep_images_are_black_and_empty_ones_are_broken(image_folder):
    assert decoded(image_folder, grey([7, 7], "int32"), suffix=".tif").max() == 0
    with pytest.raises(DataError, match=r"x0\.tif: ValueError: it has no finite values"):
        decoded(image_folder, grey([np.nan, np.inf], "float32"), suffix=".tif")


def test_first_images_are_scaled_like_all(image_folder):
    for index, path in enumerate(sorted(image_folder.glob("*/*/*.png"))):
        save(path, grey([100 * index, 100 * index + 50], "uint16"))
    settings = DataSettings("image_folder", str(image_folder), in_size=(3, 8, 8))
    assert np.array_equal(first_images(settings, 4)[0].images, load(settings).train.images[:4])


@pytest.mark.parametrize(
    ("image", "suffix"),
    [
        (Image.new("1", (8, 8), 1), ".png"),
        (Image.new("L", (8, 8), 255), ".png"),
        (Image.new("CMYK", (8, 8)), ".jpg"),
        (Image.new("RGB", (8, 8), "white").convert("P"), ".gif"),
        (Image.new("RGB", (8, 8), "white"), ".tga"),
        (Image.new("RGB", (8, 8), "white"), ".WEBP"),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), ".png"),
        (Image.new("LA", (8, 8), (0, 0)), ".png"),
        (Image.new("RGBA", (8, 8), (200, 0, 0, 0)).quantize(2), ".png"),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), ".gif"),
    ],
)
def test_white_and_transparent_are_white_in_every_format(image_folder, image, suffix):
    assert (decoded(image_folder, image, suffix=suffix) >= 254).all()


def test_half_transparent_pixels_let_white_through(image_folder):
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 51))
    assert decoded(image_folder, image)[0, 0, 0].tolist() == [244, 204, 204]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_photos_are_turned_as_their_exif_says(image_folder, suffix):
    image = Image.new("L", (8, 8))
    image.paste(255, (0, 0, 8, 4))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    [turned] = decoded(image_folder, image.convert("RGB"), suffix=suffix, exif=exif)
    assert (turned[4, :, 0] > 128).tolist() == [False] * 4 + [True] * 4


@pytest.mark.parametrize("exif", [b"damaged", b"II*\0\x08\0\0\0\x05\0\x12\x01"])
def test_damaged_exif_does_not_matter(image_folder, recwarn, exif):
    image = Image.new("RGB", (8, 8), "white")
    assert decoded(image_folder, image, suffix=".jpg", exif=b"Exif\0\0" + exif).min() >= 254
    assert not recwarn.list


# The first images


@pytest.mark.parametrize("train_images", [None, 21])
def test_first_images_are_those_of_the_whole_and_nothing_is_kept(image_folder, empty_home, train_images):
    settings = DataSettings("image_folder", str(image_folder), in_size=(3, 9, 8), train_images=train_images)
    first, count = first_images(settings, 5)
    assert list(empty_home.iterdir()) == []
    whole = load(settings).train
    assert count == whole.count
    assert np.array_equal(first.images, whole.images[:5])
    assert np.array_equal(first.labels, whole.labels[:5])


# Data sets of torchvision


@pytest.mark.parametrize(
    ("source", "first_class", "last_class"),
    [
        ("cifar10", "class 0", "class 9"),
        ("cifar100", "class 0", "class 99"),
        ("fashion_mnist", "T-shirt/top", "Ankle boot"),
        ("mnist", "0", "9"),
        ("svhn", "0", "9"),
    ],
)
def test_a_data_set_is_downloaded_once_in_its_own_format(small_archives, source, first_class, last_class):
    archives = small_archives(source)
    settings = resolve(DataSettings(source))
    with pytest.raises(DataError, match=f"^.* is not in {os.path.expanduser('~')}/.pytorch-datasets yet$"):
        first_images(settings, 5, download=False)
    assert archives.requests == []
    first, fitted_count = first_images(settings, 5)
    asked = len(archives.requests)
    images = load(settings)
    count, height, width, channels = archives.images[0].shape
    assert (settings.in_size, settings.classes) == ((channels, height, width), len(images.classes))
    assert (images.classes[0], images.classes[-1]) == (first_class, last_class)
    fitted, validation = data.split(count)
    assert np.array_equal(images.train.images, archives.images[0][fitted])
    assert np.array_equal(images.validation.images, archives.images[0][validation])
    assert np.array_equal(images.test.images, archives.images[1])
    assert np.array_equal(images.test.labels, archives.labels[1])
    assert images.test.images.flags.c_contiguous
    assert images.nbytes == 60 * (height * width * channels + 8)
    assert (first.count, fitted_count) == (5, images.train.count)
    assert first_images(settings, 5, download=False)[0].count == 5
    part = load(replace(settings, train_images=30, test_images=4))
    assert (part.train.count, part.validation.count, part.test.count) == (25, 5, 4)
    assert len(archives.requests) == asked


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "fashion_mnist", "mnist", "svhn"])
def test_a_damaged_data_set_is_mended_and_a_broken_download_told(small_archives, empty_home, source):
    archives = small_archives(source)
    images = load(DataSettings(source))
    kept = [path for path in (empty_home / ".pytorch-datasets").rglob("*") if path.is_file()]
    path = next(path for path in kept if path.suffix != ".gz")
    path.write_bytes(path.read_bytes()[:100])
    asked = len(archives.requests)
    assert np.array_equal(load(DataSettings(source)).train.images, images.train.images)
    assert (len(archives.requests) == asked) == (source != "svhn")  # else what was downloaded is unpacked again
    for path in kept:
        path.unlink()
    name, content = next(iter(archives.sent.items()))
    for broken in (b"an error page", content[: len(content) // 2]):
        archives.sent[name] = broken
        with pytest.raises(DataError, match="cannot be downloaded from http") as caught:
            load(DataSettings(source))
    assert f"  get {', '.join(archives.sent)} elsewhere, put it into {empty_home}/.pytorch-data" in str(caught.value)
    archives.sent[name] = content  # what is broken does not stand in the way of the next download
    assert load(DataSettings(source)).test.count == 20


def test_a_data_set_may_lie_elsewhere(small_archives, empty_home, tmp_path):
    small_archives("cifar10")
    settings = resolve(DataSettings(path=str(tmp_path / "elsewhere")))
    load(settings)
    assert (tmp_path / "elsewhere/cifar-10-batches-py").is_dir()
    assert not (empty_home / ".pytorch-datasets").exists()
    assert settings.identity() == resolve(DataSettings()).identity()


def test_more_images_than_a_data_set_has_are_an_error(small_archives):
    small_archives("cifar10")
    with pytest.raises(DataError, match=r"data\.train_images asks for 41 of 40 images"):
        load(DataSettings(train_images=41))
    with pytest.raises(DataError, match=r"data\.train_images asks for 50001 of 50000 images"):
        resolve(DataSettings(train_images=50_001))  # before a download


def test_without_a_network_the_ways_out_are_named(small_archives, empty_home, monkeypatch):
    from torchvision.datasets import CIFAR10

    archives = small_archives("cifar10")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed_port = free.getsockname()[1]
    url = f"http://127.0.0.1:{closed_port}/cifar-10-python.tar.gz"
    monkeypatch.setattr(CIFAR10, "url", url)
    with pytest.raises(DataError) as caught:
        load(DataSettings())
    message, root = str(caught.value), empty_home / ".pytorch-datasets"
    assert message.startswith(f"CIFAR10 is not in {root}, and cannot be downloaded from {url}: ")
    assert "Connection refused" in message
    assert f"get cifar-10-python.tar.gz elsewhere, put it into {root}, and run the same again" in message
    assert "name the folder that has it, as data: cifar10:FOLDER" in message
    assert "data: image_folder:PATH" in message
    assert "data: shapes" in message

    # The first way out.
    (root / "cifar-10-python.tar.gz").write_bytes(archives.sent["cifar-10-python.tar.gz"])
    assert load(DataSettings()).test.count == 20


def test_a_torchvision_that_does_not_fit_is_told(monkeypatch, tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    fault = r"not fit this PyTorch \(operator torchvision::nms does not exist\); install torch and torchvision again"
    with pytest.raises(DataError, match=fault):
        first_images(resolve(DataSettings("cifar10")), 5, download=False)


def test_svhn_needs_scipy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="svhn is read with SciPy, which is not installed; pip install scipy"):
        load(DataSettings("svhn"))


# Arrays


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    return {
        "train_images": random.randint(0, 256, (40, 6, 5, 3), np.uint8),
        "train_labels": np.arange(40, dtype=np.int32) % 4,
        "test_images": random.randint(0, 256, (8, 6, 5, 3), np.uint8),
        "test_labels": np.arange(8, dtype=np.uint8) % 4,
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_tell_their_size_and_classes(arrays, tmp_path, save):
    save(tmp_path / "images.npz", **arrays)
    settings = resolve(DataSettings("arrays", str(tmp_path / "images.npz")))
    assert (settings.in_size, settings.classes, data.count_images(settings)) == ((3, 6, 5), 4, (34, 6, 8))
    assert resolve(settings) == settings
    images = load(settings)
    assert images.classes == ("0", "1", "2", "3")
    assert np.array_equal(images.test.images, arrays["test_images"])
    assert images.test.labels.tolist() == arrays["test_labels"].tolist()
    assert np.array_equal(first_images(settings, 3)[0].images, images.train.images[:3])
    assert load(replace(settings, train_images=20, test_images=2)).test.count == 2
    assert describe(settings).endswith("images.npz: 4 classes; 34 images to train, 6 to validate, 8 to test")


def test_arrays_without_channels_are_grey(arrays, tmp_path):
    arrays |= {name: arrays[name][..., 0] for name in ("train_images", "test_images")}
    np.savez(tmp_path / "images.npz", **arrays)
    settings = resolve(DataSettings("arrays", str(tmp_path / "images.npz")))
    assert settings.in_size == (1, 6, 5)
    assert np.array_equal(load(settings).test.images[..., 0], arrays["test_images"])


def test_arrays_in_the_order_of_fortran_are_images_like_others(arrays, tmp_path):
    np.savez(tmp_path / "images.npz", **arrays | {"test_images": np.asfortranarray(arrays["test_images"])})
    images = load(DataSettings("arrays", str(tmp_path / "images.npz"))).test.images
    assert np.array_equal(images, arrays["test_images"])
    assert images.flags.c_contiguous


def test_arrays_are_known_by_their_content(arrays, tmp_path):
    np.savez(tmp_path / "images.npz", **arrays)
    np.savez(tmp_path / "moved.npz", **arrays)
    settings = resolve(DataSettings("arrays", str(tmp_path / "images.npz")))
    assert resolve(replace(settings, path=str(tmp_path / "moved.npz"))).identity() == settings.identity()
    arrays["train_images"][3, 0, 0] ^= 1
    np.savez(tmp_path / "images.npz", **arrays)
    with pytest.raises(DataError, match="not the images that the training was planned with"):
        load(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((40, 6, 5, 3))}, "train_images is float64; give uint8, 0 to 255"),
        ({"train_images": np.zeros((40, 30), np.uint8)}, r"shape \(40, 30\); give \(N, height, width, channels\)"),
        ({"test_images": np.zeros((8, 3, 6, 5), np.uint8)}, r"shape \(8, 3, 6, 5\); give .* with 1 or 3 channels"),
        ({"test_images": np.zeros((8, 7, 5, 3), np.uint8)}, "train_images and test_images differ in size"),
        ({"test_images": np.zeros((8, 6, 5), np.uint8)}, "train_images and test_images differ in size"),
        ({"train_labels": np.zeros(39, int)}, r"train_labels is int64 of the shape \(39,\); give .*, one for each of"),
        ({"train_labels": np.zeros(40, int)}, "train_labels has the classes 0; number two or more"),
        ({"train_labels": np.zeros((40, 4))}, r"train_labels is float64 of the shape \(40, 4\); give integers \(N,\)"),
        ({"test_labels": np.arange(8) - 1}, "test_labels has classes that train_labels lacks: -1, 4, 5, 6; take them"),
        ({"train_labels": np.arange(40) % 4 + 1}, "has the classes 1, 2, 3, 4; number two or more of them from 0 on"),
        ({"train_labels": np.arange(40) % 4 * 10**9}, "has the classes 0, 1000000000, 2000000000, 3000000000; number"),
        ({"test_labels": np.array(["cat"] * 8, object)}, "cannot be read .*; write train_images, .* with numpy.savez"),
        ({"train_images": np.zeros(0), "test_labels": np.zeros(3)}, "(?s)train_images is float.*test_labels is float"),
    ],
)
def test_unfit_arrays_are_explained(arrays, tmp_path, changes, message):
    np.savez(tmp_path / "images.npz", **arrays | changes)
    with pytest.raises(DataError, match=message):
        resolve(DataSettings("arrays", str(tmp_path / "images.npz")))


def test_arrays_that_are_encrypted_are_told(arrays, tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, **arrays)
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = content.find(signature)
        while place >= 0:
            content[place + flags] |= 1
            place = content.find(signature, place + 4)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"images\.npz: cannot be read \(.* is encrypted, .*\); write train_images,"):
        resolve(DataSettings("arrays", str(path)))


def test_what_is_no_file_of_arrays_is_told(arrays, tmp_path):
    settings = DataSettings("arrays", str(tmp_path / "images.npz"))
    with pytest.raises(DataError, match=r"images\.npz: there is no such regular file"):
        resolve(settings)
    with pytest.raises(DataError, match=r"no such regular file; check the path of arrays"):
        resolve(DataSettings("arrays", str(tmp_path)))
    np.savez(tmp_path / "images.npz", **{k: v.repeat(100, axis=1) if v.ndim > 1 else v for k, v in arrays.items()})
    flipped = bytearray((tmp_path / "images.npz").read_bytes())
    flipped[100_000] ^= 1
    for content in (b"something else", flipped):
        (tmp_path / "images.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"images\.npz: cannot be read \(.*\); write train_images, "):
            resolve(settings)
    np.savez(tmp_path / "images.npz", x_train=arrays["train_images"])
    with pytest.raises(
        DataError, match=r"train_images is not a file in the archive.*write train_images, train_labels, test_"
    ):
        resolve(settings)
    np.savez(tmp_path / "images.npz", **arrays)
    with pytest.raises(DataError, match=r"in_size: the images of .* are \[3, 6, 5\]; leave it out"):
        resolve(replace(settings, in_size=(3, 8, 8)))
