import hashlib
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from tune_cnn import data
from tune_cnn.data import ImageSet, first_images, load, resolve
from tune_cnn.data.batches import batches, evaluation_batches
from tune_cnn.errors import DataError
from tune_cnn.settings import DataSettings, Settings

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
    train, validation = batches(image_set, 8, shuffle=True), evaluation_batches(image_set, 5, at_least=5)
    plain_train, plain_validation = DataLoader(plain, 8, shuffle=True), DataLoader(plain, 5)
    assert_same_passes(image_set, [train, validation] * 3, [plain_train, plain_validation] * 3)


def test_a_pass_cut_short_draws_no_less_than_a_whole_one(image_set):
    short = batches(image_set, 8, shuffle=True, max_batches=2)
    torch.manual_seed(7)
    cut = [[images[:, 0, 0, 0].tolist() for images, _ in short] for _ in range(3)]
    state = torch.random.get_rng_state()
    whole = batches(image_set, 8, shuffle=True)
    torch.manual_seed(7)
    assert cut == [[images[:, 0, 0, 0].tolist() for images, _ in whole][:2] for _ in range(3)]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_length_is_the_number_of_batches(image_set):
    assert len(batches(image_set, 8)) == 7 == len(list(batches(image_set, 8)))
    assert len(batches(image_set, 8, max_batches=3)) == 3 == len(list(batches(image_set, 8, max_batches=3)))
    assert len(batches(image_set, 8, max_batches=100)) == 7


def test_a_batch_is_channels_last_bytes_and_whole_numbers(image_set):
    images, labels = next(iter(batches(image_set, 8)))
    assert (images.shape, images.dtype) == ((8, 3, 4, 5), torch.uint8)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (labels.tolist(), labels.dtype) == ([0, 1, 2, 3, 4, 5, 6, 7], torch.int64)


def test_writing_into_a_batch_leaves_the_shared_images_alone(image_set):
    images, _ = next(iter(batches(image_set, 8)))
    images.fill_(255)
    assert image_set.images[:8, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_evaluation_computes_many_images_at_once_but_reports_losses_for_few(image_set):
    loader = evaluation_batches(image_set, 12, at_least=30)
    assert [len(labels) for _, labels in loader] == [36, 17]
    assert loader.loss_batch_size == 12
    assert [len(labels) for _, labels in evaluation_batches(image_set, 40, at_least=30)] == [40, 13]


def test_losses_cannot_be_reported_across_batches(image_set):
    with pytest.raises(ValueError, match="batch_size 10 is not a multiple of loss_batch_size 4"):
        batches(image_set, 10, loss_batch_size=4)


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
    assert len(list((empty_home / ".cache/tune_cnn/images").glob("*.npy"))) == 2
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
    assert len(list((tmp_path / "elsewhere/tune_cnn/images").iterdir())) == 2


def test_progress_of_decoding_is_shown_on_stderr(image_folder, capsys):
    load(DataSettings("image_folder", str(image_folder), in_size=(3, 9, 9)))
    assert capsys.readouterr() == ("", "")
    load(DataSettings("image_folder", str(image_folder)), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "decoding images: 100%" in err
    assert "24/24" in err


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


def test_a_folder_that_changed_since_the_plan_is_refused(image_folder):
    settings = resolve(DataSettings("image_folder", str(image_folder)))
    (image_folder / "train/red/000.png").unlink()
    with pytest.raises(DataError, match="not the images that the training was planned with"):
        load(settings)


def test_an_image_that_cannot_be_decoded_is_named(image_folder):
    path = image_folder / "train/green/003.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(
        DataError, match=r"train/green/003\.png: cannot be decoded .*; repair the image, or take it out"
    ):
        load(DataSettings("image_folder", str(image_folder)))


def remove_folder(root: Path) -> None:
    shutil.rmtree(root)


def remove_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def empty_train(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


def empty_class(root: Path) -> None:
    for path in (root / "train/red").iterdir():
        path.unlink()


def remove_class(root: Path) -> None:
    shutil.rmtree(root / "test/red")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_folder, "colours: there is no such folder; check the path of image_folder"),
        (remove_test, "colours/test: there is no such folder; it must hold one folder of images for each class"),
        (empty_train, "colours/train: .*; it must hold one folder of images for each class"),
        (empty_class, "colours/train: Found no valid file for the classes red"),
        (remove_class, "train/ and test/ do not have the same classes; red is in one of them only: give every class"),
    ],
)
def test_an_unfit_folder_is_explained(image_folder, spoil, message):
    spoil(image_folder)
    with pytest.raises(DataError, match=message):
        resolve(DataSettings("image_folder", str(image_folder)))


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


def test_first_images_of_cifar10_are_not_downloaded_unasked(cifar10_archive):
    archive = cifar10_archive()
    with pytest.raises(DataError, match=f"^CIFAR-10 is not in {archive.root} yet$"):
        first_images(DataSettings(), 5, download=False)
    assert archive.requests == 0
    assert first_images(DataSettings(), 5)[0].count == 5
    assert first_images(DataSettings(), 5, download=False)[1] == load(DataSettings()).train.count


# CIFAR-10


def test_cifar10_is_downloaded_once(cifar10_archive):
    archive = cifar10_archive(images_per_batch=30)
    images = load(resolve(DataSettings()))
    assert (archive.root / "cifar-10-batches-py").is_dir()
    assert (images.train.count, images.validation.count, images.test.count) == (127, 23, 30)
    assert images.classes[0] == "airplane"
    assert images.test.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 3
    assert images.test.images.flags.c_contiguous
    assert images.nbytes == 180 * (32 * 32 * 3 + 8)

    asked = archive.requests
    again = load(resolve(DataSettings()))
    assert archive.requests == asked
    assert np.array_equal(images.train.images, again.train.images)


def test_cifar10_gives_the_images_that_torchvision_gives(cifar10_archive):
    from torchvision.datasets import CIFAR10

    archive = cifar10_archive()
    images = load(DataSettings())
    theirs = [np.asarray(image) for image, _ in CIFAR10(archive.root, train=False)]
    assert np.array_equal(images.test.images, theirs)


def test_cifar10_may_lie_elsewhere(cifar10_archive, tmp_path):
    archive = cifar10_archive()
    settings = resolve(DataSettings(path=str(tmp_path / "elsewhere")))
    load(settings)
    assert (tmp_path / "elsewhere/cifar-10-batches-py").is_dir()
    assert not archive.root.exists()
    assert settings.identity() == resolve(DataSettings()).identity()


def test_part_of_cifar10(cifar10_archive):
    cifar10_archive()
    images = load(DataSettings(train_images=100, test_images=10))
    assert (images.train.count, images.validation.count, images.test.count) == (85, 15, 10)
    with pytest.raises(DataError, match=r"data\.train_images asks for 121 of 120 images"):
        load(DataSettings(train_images=121))


def test_without_a_network_the_ways_out_are_named(cifar10_archive, monkeypatch):
    from torchvision.datasets import CIFAR10

    archive = cifar10_archive()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed_port = free.getsockname()[1]
    url = f"http://127.0.0.1:{closed_port}/cifar-10-python.tar.gz"
    monkeypatch.setattr(CIFAR10, "url", url)
    with pytest.raises(DataError) as caught:
        load(DataSettings())
    message = str(caught.value)
    assert message.startswith(f"CIFAR-10 is not in {archive.root}, and cannot be downloaded from {url}: ")
    assert "Connection refused" in message
    assert f"get cifar-10-python.tar.gz elsewhere, put it into {archive.root}, and run the same again" in message
    assert "data: image_folder:PATH" in message
    assert "data: shapes" in message

    # The first way out.
    (archive.root / "cifar-10-python.tar.gz").write_bytes(archive.content)
    assert load(DataSettings()).test.count == 24


@pytest.mark.parametrize("damage", ["cut short", "other bytes"])
def test_a_broken_download_does_not_stand_in_the_way_of_the_next(cifar10_archive, damage):
    archive = cifar10_archive()
    half = archive.content[: len(archive.content) // 2]
    archive.sent = half if damage == "cut short" else half + b"x" * (len(archive.content) - len(half))
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz is incomplete or damaged"):
        load(DataSettings())
    archive.sent = archive.content
    assert load(DataSettings()).test.count == 24


def test_damaged_batches_are_unpacked_again(cifar10_archive):
    archive = cifar10_archive()
    images = load(DataSettings())
    asked = archive.requests
    (archive.root / "cifar-10-batches-py/data_batch_3").write_bytes(b"damaged")
    assert np.array_equal(load(DataSettings()).train.images, images.train.images)
    assert archive.requests == asked
