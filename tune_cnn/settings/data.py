"""Settings of the images of a training, and what each source allows."""

import os
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, with_config

from tune_cnn.rules import NO_OTHER_KEYS, AsChoice, AsWhole, Count, Text, Whole, check, plain, shown, suggest


class SourceRules(NamedTuple):
    """What an image source allows in its settings."""

    path: str  # a `folder` or a `file` is required; `optional`; or `none`, where images are drawn from a seed
    in_size: tuple[int, int, int] | None = None  # (channels, height, width) of all its images; None: any
    channels: tuple[int, ...] = (3,)  # numbers of channels allowed where `in_size` is any
    example: str = "/path/to/images"


# `data.SOURCES` has the class of each.
SOURCES = {
    "cifar10": SourceRules("optional", in_size=(3, 32, 32)),
    "image_folder": SourceRules("folder"),
    "shapes": SourceRules("none"),
    "arrays": SourceRules("file", channels=(1, 3), example="/path/to/images.npz"),
    "cifar100": SourceRules("optional", in_size=(3, 32, 32)),
    "fashion_mnist": SourceRules("optional", in_size=(1, 28, 28)),
    "mnist": SourceRules("optional", in_size=(1, 28, 28)),
    "svhn": SourceRules("optional", in_size=(3, 32, 32)),
}

FOUND_OUT = ("classes", "fingerprint")  # filled in by `data.resolve`
_InSize = Annotated[
    tuple[Annotated[Literal[1, 3], AsChoice], Count, Count],
    Field(description="[channels, height, width] with 1 or 3 channels", examples=[[3, 32, 32]]),
]


@with_config(NO_OTHER_KEYS)
@dataclass(frozen=True)
class DataSettings:
    """Settings of the images.

    Attributes:
        source: One of `SOURCES`.
        path: Path of the images, or where to download them; not part of the trial id.
        in_size: Channels, height and width of an image; a folder's images are resized to it. Fixed where all images of
            a source have one size.
        train_images: Number of training images, before the validation set is split off; None: all.
        test_images: Number of test images; None: all.
        seed: Random seed of the drawn images, for `shapes`.
        classes: Number of classes; filled in by `data.resolve`.
        fingerprint: Hash of the listing of a folder or array file; filled in by `data.resolve`.
    """

    source: Annotated[Literal[*SOURCES], AsChoice] = "cifar10"  # type: ignore[valid-type]
    path: Text | None = None
    in_size: _InSize = (3, 32, 32)
    train_images: Annotated[int, Field(strict=True, ge=20, lt=2**63), AsWhole] | None = None
    test_images: Count | None = None
    seed: Whole = 0
    classes: Count = 10
    fingerprint: Text | None = None

    def __post_init__(self) -> None:
        source = SOURCES.get(self.source)
        if source and source.in_size and self.in_size == DataSettings.in_size:
            object.__setattr__(self, "in_size", source.in_size)

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON values."""
        return {**vars(self), "in_size": list(self.in_size)}

    def identity(self) -> dict[str, Any]:
        """What decides the images, as JSON values."""
        return {key: value for key, value in self.to_json().items() if key != "path"}


def source_mapping(value: object) -> tuple[dict[str, Any], list[str]]:
    """Expand `cifar10`, `image_folder:/path` or a mapping into a mapping; return the faults too."""
    value = plain(value)
    if isinstance(value, str):
        source, _, path = value.partition(":")
        if source.lower() not in SOURCES:
            is_place = source.endswith(".npz") or os.sep in source or os.path.isdir(value)
            remedy = f"write image_folder:{value}, or arrays:{value}" if is_place else suggest(source, SOURCES)
            return {}, [f"data: {shown(value)} is not a source; {remedy}"]
        return {"source": source} | ({"path": path} if path else {}), []
    if isinstance(value, dict):
        return value, []
    return {}, [f"data: {shown(value)} is not a source; there are {', '.join(SOURCES)}"]


def _source_problems(data: DataSettings) -> list[str]:
    """List the settings that the source does not support, one line each."""
    source, name = SOURCES[data.source], data.source
    problems = []
    if source.path in ("folder", "file") and data.path is None:
        problems.append(f"data: {name} needs its {source.path}; write {name}:{source.example}")
    if source.path == "none" and data.path is not None:
        problems.append(f"data: {name} are drawn on the spot and take no path; write {name}")
    if source.in_size is not None and source.in_size != data.in_size:
        problems.append(f"data.in_size: the images of {name} are {[*source.in_size]}; leave it out")
    if source.in_size is None and data.in_size[0] not in source.channels:
        problems.append(f"data.in_size: the images of {name} have 3 channels; write [3, height, width]")
    if source.path != "none" and data.seed != 0:
        problems.append("data.seed: only images that are drawn have one, such as shapes; leave it out")
    return problems


def parse_data(value: object) -> tuple[DataSettings, list[str]]:
    """Read `cifar10`, `image_folder:/path`, or a mapping with the keys of `DataSettings`; return the faults too."""
    if isinstance(value, DataSettings):
        return value, []
    mapping, problems = source_mapping(value)
    data, found = check(DataSettings, mapping)
    if data is None or problems:
        return DataSettings(), problems or [f"data.{problem}" for problem in found]
    return data, _source_problems(data)
