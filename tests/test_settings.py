"""Settings: their rules, their round trip, and what the trial id depends on."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tune_cnn.errors import ConfigError
from tune_cnn.settings import KEYS, SOURCES, DataSettings, Settings, parse_data, parse_settings

OTHER_SETTINGS: dict[str, Any] = {
    "seed": 1, "bs_train": 64, "bs_test": 8, "batches": 7, "epochs": 9, "early_stopping": None, "lr": 0.5, "reg": 0.5,
    "filters_per_layer": (64, 64), "layers_per_block": 1, "pool_every": 3, "hidden_dims": (), "ycn": True,
    "init": "he", "optimizer": "sgd", "momentum": 0.5, "schedule": "cosine", "warmup": 0.5, "label_smoothing": 0.5,
    "flip": True, "translate": 2, "cutout": 8, "average": 0.5, "test_views": 2, "precision": "bf16",
    "compile": True, "cuda_graph": True, "model": "nets.py:Net", "model_args": {"width": 3, "limit": 1e30},
    "model_fingerprint": "0123", "data": DataSettings("shapes"),
}  # fmt: skip

OTHER_DATA: dict[str, Any] = {
    "source": "shapes", "in_size": (3, 16, 16), "train_images": 20, "test_images": 1, "seed": 1, "classes": 3,
    "fingerprint": "0123",
}  # fmt: skip


# The trial id


@pytest.mark.parametrize("key", [field.name for field in fields(Settings) if field.name != "cuda_graph"])
def test_every_setting_makes_another_trial(key: str) -> None:
    assert replace(Settings(), **{key: OTHER_SETTINGS[key]}).trial_id != Settings().trial_id


@pytest.mark.parametrize("key", [field.name for field in fields(DataSettings) if field.name != "path"])
def test_everything_that_decides_the_images_makes_another_trial(key: str) -> None:
    other = Settings(data=replace(DataSettings(), **{key: OTHER_DATA[key]}))
    assert other.trial_id != Settings().trial_id


def test_where_the_images_lie_does_not_make_another_trial() -> None:
    assert Settings(data=DataSettings(path="/elsewhere")).trial_id == Settings().trial_id


def test_trial_id_is_eight_hex_digits_and_stays_so() -> None:
    assert Settings().trial_id == "cb9d516b"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"lr": 1, "reg": 0}, {"lr": 1.0, "reg": 0.0}),
        ({"bs_train": 50}, {"bs_train": 50, "bs_test": 12}),
        ({"filters_per_layer": [32, 64]}, {"filters_per_layer": (32, 64)}),
    ],
)
def test_two_ways_to_write_a_setting_are_one_trial(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert parse_settings(one, "one").trial_id == parse_settings(other, "other").trial_id


def test_json_round_trip_keeps_everything() -> None:
    settings = Settings(**{**OTHER_SETTINGS, "data": DataSettings(**OTHER_DATA)})
    assert parse_settings(settings.to_json()) == settings


# Values as notebooks have them


@pytest.mark.parametrize(
    ("value", "equal"),
    [
        ({"layers_per_block": np.int64(3)}, {"layers_per_block": 3}),
        ({"layers_per_block": 4 / 2 + 1}, {"layers_per_block": 3}),
        ({"seed": np.uint32(7)}, {"seed": 7}),
        ({"seed": torch.tensor(7)}, {"seed": 7}),
        ({"epochs": np.array(5)}, {"epochs": 5}),
        ({"lr": np.float32(1e-3)}, {"lr": 1e-3}),
        ({"lr": np.float16(0.1)}, {"lr": 0.1}),
        ({"lr": np.array(3e-4, np.float32)}, {"lr": 3e-4}),
        ({"lr": np.logspace(-3, -1, 3)[1]}, {"lr": 1e-2}),
        ({"reg": np.int64(0)}, {"reg": 0}),
        ({"filters_per_layer": np.array([4, 6])}, {"filters_per_layer": [4, 6]}),
        ({"filters_per_layer": (np.int32(4), 6.0)}, {"filters_per_layer": [4, 6]}),
        ({"hidden_dims": range(4, 7)}, {"hidden_dims": [4, 5, 6]}),
        ({"ycn": np.bool_(True)}, {"ycn": True}),
        ({"optimizer": np.str_("Adam")}, {"optimizer": "adam"}),
        ({"precision": "BF16"}, {"precision": "bf16"}),
        ({"test_views": 2.0}, {"test_views": 2}),
        ({"data": {"source": "shapes", "seed": np.int8(1)}}, {"data": {"source": "shapes", "seed": 1}}),
    ],
)  # fmt: skip
def test_a_value_is_the_plain_one_that_it_equals(value: dict[str, Any], equal: dict[str, Any]) -> None:
    read, expected = parse_settings(value, "a call"), parse_settings(equal, "a call")
    assert (read, read.trial_id) == (expected, expected.trial_id)
    assert json.dumps(read.to_json()) == json.dumps(expected.to_json())


# Defaults and derived values


def test_each_width_is_repeated_layers_per_block_times() -> None:
    settings = Settings(filters_per_layer=(64, 128), layers_per_block=2)
    assert settings.filters == [64, 64, 128, 128]
    assert settings.label == "K64-128_L2"


# Faults


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"seed": -1}, "seed: -1 is not a whole number from 0 up, or null"),
        ({"seed": 1.5}, "seed: 1.5 is not a whole number from 0 up, or null"),
        ({"seed": "1"}, "seed: '1' is not a whole number from 0 up, or null"),
        ({"seed": 2**63}, "seed: 9223372036854775808 is not a whole number from 0 up, or null"),
        ({"bs_train": 0}, "bs_train: 0 is not a whole number from 1 up"),
        ({"bs_train": True}, "bs_train: True is not a whole number from 1 up"),
        ({"bs_train": None}, "bs_train: None is not a whole number from 1 up"),
        ({"early_stopping": 0}, "early_stopping: 0 is not a whole number from 1 up, or null"),
        ({"lr": 0}, "lr: 0 is not a number above 0"),
        ({"lr": "1e-3"}, "lr: '1e-3' is not a number above 0"),
        ({"lr": float("nan")}, "lr: nan is not a number above 0"),
        ({"reg": float("inf")}, "reg: inf is not a number from 0 up"),
        ({"reg": -0.1}, "reg: -0.1 is not a number from 0 up"),
        ({"filters_per_layer": []}, "filters_per_layer: [] is not a list of whole numbers from 1 up, such as [64]"),
        ({"filters_per_layer": 64}, "filters_per_layer: 64 is not a list of whole numbers from 1 up, such as [64]"),
        ({"hidden_dims": [0]}, "hidden_dims: [0] is not a list of whole numbers from 1 up, such as [100, 100]"),
        (
            {"hidden_dims": [8, 2.5]},
            "hidden_dims: [8, 2.5] is not a list of whole numbers from 1 up, such as [100, 100]",
        ),
        ({"seed": 10**5000}, "seed: a huge number is not a whole number from 0 up, or null"),
        ({"lr": 10**400}, f"lr: 1{'0' * 119}... is not a number above 0"),
        ({"warmup": 1}, "warmup: 1 is not a number from 0 up and below 1"),
        ({"test_views": True}, "test_views: True is not one of 1, 2, 6"),
        ({"optimizer": "adm"}, "optimizer: 'adm' is not one of adam, adamw, sgd, muon"),
        ({"ycn": 1}, "ycn: 1 is not true or false"),
        ({"data": "imagenet"}, "data: 'imagenet' is not a source; did you mean 'image_folder'?"),
    ],
)
def test_faulty_setting_is_named_with_its_rule(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match="a call: 1 problem") as caught:
        parse_settings(values, "a call")
    assert caught.value.problems == [problem]


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("learning_rate", "did you mean 'lr'?"),
        ("epoch", "did you mean 'epochs'?"),
        ("batch_size", "did you mean 'bs_train'?"),
        ("weight_decay", "did you mean 'reg'?"),
        ("K", "did you mean 'filters_per_layer'?"),
        ("LR", "did you mean 'lr'?"),
        ("patience", "did you mean 'early_stopping'?"),
        ("colour", f"there are {', '.join(KEYS)}, data"),
        ("scheduler", f"there are {', '.join(KEYS)}, data"),
        ("schedulers", f"there are {', '.join(KEYS)}, data"),
    ],
)
def test_unknown_key_suggests_the_real_one_or_lists_all(key: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match="unknown key") as caught:
        parse_settings({key: 1}, "a call")
    assert caught.value.problems == [f"{key}: unknown key; {remedy}"]


# The images


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ("cifar10", DataSettings()),
        ("cifar10:/data", DataSettings(path="/data")),
        ("image_folder:C:/images", DataSettings("image_folder", path="C:/images")),
        ("CIFAR10", DataSettings()),
        ({"source": "Image_Folder", "path": Path("/x")}, DataSettings("image_folder", path="/x")),
        ({"source": "shapes", "in_size": [3, 16, 16]}, DataSettings("shapes", in_size=(3, 16, 16))),
    ],
)
def test_source_is_read_from_a_text_or_a_mapping(value: Any, data: DataSettings) -> None:
    assert parse_data(value) == (data, [])


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("/images", "data: '/images' is not a source; write image_folder:/images, or arrays:/images"),
        ("images.npz", "data: 'images.npz' is not a source; write image_folder:images.npz, or arrays:images.npz"),
        ("image-folder:images", "data: 'image-folder:images' is not a source; did you mean 'image_folder'?"),
        ("array:images.npz", "data: 'array:images.npz' is not a source; did you mean 'arrays'?"),
        ("CIFAR-10", "data: 'CIFAR-10' is not a source; did you mean 'cifar10'?"),
        (5, f"data: 5 is not a source; there are {', '.join(SOURCES)}"),
        ({"source": "image_folder"}, "data: image_folder needs its folder; write image_folder:/path/to/images"),
        ({"in_size": [3, 16, 16]}, "data.in_size: the images of cifar10 are [3, 32, 32]; leave it out"),
        (
            {"source": "shapes", "in_size": [1, 16, 16]},
            "data.in_size: the images of shapes have 3 channels; write [3, height, width]",
        ),
        (
            {"source": "shapes", "in_size": [3, 16]},
            "data.in_size: [3, 16] is not [channels, height, width] with 1 or 3 channels, such as [3, 32, 32]",
        ),
        ({"sorce": "shapes"}, "data.sorce: unknown key; did you mean 'source'?"),
    ],
)
def test_faulty_source_is_named_with_its_remedy(value: Any, problem: str) -> None:
    assert parse_data(value)[1] == [problem]
