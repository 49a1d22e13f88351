"""Images in a folder, with a subfolder for each class: listed without opening them, then decoded."""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from stat import S_ISDIR, S_ISREG
from unicodedata import normalize

import numpy as np
from PIL import Image

from tune_cnn.data.decoding import ImageFile, decode, read_images
from tune_cnn.data.source import Found, ImageSet, Indices, Source, choose, split
from tune_cnn.errors import DataError
from tune_cnn.texts import counted, digest, enumerated

# Lower-case names that operating systems and NAS boxes leave in folders, besides those that begin with a dot.
_SYSTEM_NAMES = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin"}
_SYSTEM_NAMES |= {"system volume information", "lost+found", "__pycache__"}
# Formats that Pillow knows but cannot decode by itself.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


class ImageFolder(Source):
    """Folders `train/` and `test/`, both with one subfolder of images per class."""

    def inspect(self) -> Found:
        """List what the folder has."""
        return list_folder(self.path)[0]

    def read(self, progress: bool = False, download: bool = True) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
        """Decode the images, or load them from the cache."""
        found, files = list_folder(self.path)
        self.check_unchanged(found)
        train, test = choose(self.data, found)
        chosen = [files[index] for index in (*train, *(found.train + test))]
        both = ImageSet(read_images(chosen, *self.data.in_size[1:], progress), _labels(chosen))
        fitted, tested = (both.take(indices) for indices in np.split(np.arange(len(chosen)), [len(train)]))
        return fitted, tested, found.names

    def first(self, count: int, download: bool) -> tuple[ImageSet, int]:
        """Decode only the first images, unless they must be scaled by the value range of all."""
        found, files = list_folder(self.path)
        train, _ = choose(self.data, found)
        fitted, _ = split(len(train))
        chosen = [files[index] for index in train[fitted[:count]]]
        with suppress(DataError):  # else read all, so that the error names every broken file
            images, scaled = decode(chosen, *self.data.in_size[1:])
            if not scaled:
                return ImageSet(images, _labels(chosen)), len(fitted)
        return super().first(count, download)


def _labels(files: Sequence[ImageFile]) -> Indices:
    return np.array([file.label for file in files], np.int64)


def list_folder(root: str) -> tuple[Found, list[ImageFile]]:
    """Find the images of a folder without opening them, in the order of torchvision's `ImageFolder`.

    Returns:
        What the folder has, with a fingerprint over names and sizes of all files; and the files, training files first.

    Raises:
        DataError: The folder cannot be read, or is not what `ImageFolder` needs; every fault is named.
    """
    if not os.path.isdir(root):
        fault = "a file, not a folder; unpack it" if os.path.exists(root) else "there is no such folder"
        raise DataError(f"{root}: {fault}; check the path of image_folder")
    try:
        return _list(root)
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror}); make it readable, or take it out"
        ) from error


def _list(root: str) -> tuple[Found, list[ImageFile]]:
    listing = _Listing(root)
    beside, folders = listing.entries(root)
    wanted = f"{root} must hold train/ and test/, and holds only {enumerated(folders) or 'files'}"
    if absent := [part for part in ("train", "test") if part not in folders]:
        raise DataError("\n".join(f"{os.path.join(root, part)}: there is no such folder; {wanted}" for part in absent))
    train, test = listing.classes("train"), listing.classes("test")
    if train.keys() != test.keys() and not listing.problems:
        # An accented name may be encoded in two ways that look the same, as on macOS and on Linux.
        spelled = str if len({normalize("NFC", name) for name in train | test}) == len(train | test) else ascii
        only = [
            f"only {part}/ has {enumerated([*map(spelled, sorted(names))])}"
            for part, names in (("train", train.keys() - test.keys()), ("test", test.keys() - train.keys()))
            if names
        ]
        listing.problems.append(
            f"{root}: train/ and test/ do not have the same classes: {', '.join(only)}; "
            "give every class a folder of the same name in both"
        )
    if listing.dead_links:
        links = counted(len(listing.dead_links), "broken link")
        listing.problems.append(f"{links}: {enumerated(listing.dead_links)}; repair or remove each")
    if listing.problems:
        raise DataError("\n".join(listing.problems))
    left_out = [f"the folder {name}" for name in folders if name not in ("train", "test")]
    left_out += [f"{counted(len(beside), 'image')} beside train/ and test/"] if beside else []
    names = sorted(train)
    fitted, tested = (
        [file._replace(label=label) for label, name in enumerate(names) for file in part[name]]
        for part in (train, test)
    )
    files = fitted + tested
    found = Found(
        root,
        len(fitted),
        len(tested),
        len(names),
        # A name that is not UTF-8 cannot be written to results and reports.
        tuple(os.fsencode(name).decode(errors="replace") for name in names),
        left_out + listing.left_out(),
        {"fingerprint": digest("".join(f"{file.name}\0{file.size_bytes}\n" for file in files))},
    )
    return found, files


class _Listing:
    """One pass over a folder that collects faults of its structure and counts what is left out."""

    def __init__(self, root: str) -> None:
        kinds = Image.registered_extensions()
        self.extensions = {suffix for suffix, kind in kinds.items() if kind in Image.OPEN.keys() - _NOT_DECODED}
        self.root = root
        self.problems: list[str] = []
        self.dead_links: list[str] = []
        self.hidden, self.other = Counter[str](), Counter[str]()  # by name, and by file name extension

    def classes(self, part: str) -> dict[str, list[ImageFile]]:
        """List the images in `train/` or `test/` by class, which is the name of their folder."""
        place = os.path.join(self.root, part)
        loose, names = self.entries(place)
        classes = {name: self.files(os.path.join(place, name)) for name in names}
        if loose:
            fault = f"{counted(len(loose), 'image')} directly in it; move each into the folder of its class"
            self.problems.append(f"{place}: {fault}")
        elif len(names) < 2:
            fault = f"it holds {enumerated(names) or 'nothing'}; it must hold one folder of images for each class"
            folders = {os.path.dirname(file.name) for files in classes.values() for file in files}
            inner = len(os.path.commonpath(folders).split("/")) if folders else 0
            below = {parts[inner] for folder in folders if len(parts := folder.split("/")) > inner}
            remedy = f"; move the folders {enumerated(sorted(below))} up into it" if below else ", two or more"
            self.problems.append(f"{place}: {fault}{remedy}")
        elif empty := [name for name in names if not classes[name]]:
            fault = f"no images that can be decoded in {enumerated(empty)}; fill or remove what is empty"
            self.problems.append(f"{place}: {fault}")
        return classes

    def files(self, place: str, above: tuple[str, ...] = ()) -> list[ImageFile]:
        """List all images below a folder; links are followed, but not in cycles."""
        here = os.path.realpath(place)
        if here in above:
            return []
        files, names = self.entries(place)
        for name in names:
            files += self.files(os.path.join(place, name), (*above, here))
        return sorted(files, key=lambda file: os.path.split(file.path))

    def entries(self, place: str) -> tuple[list[ImageFile], list[str]]:
        """List the images and the names of the subfolders directly in a folder, without hidden ones."""
        files, names = [], []
        with os.scandir(place) as entries:
            for entry in entries:
                suffix = os.path.splitext(entry.name)[1].lower()
                if entry.name.startswith(".") or entry.name.lower() in _SYSTEM_NAMES:
                    self.hidden[entry.name] += entry.is_dir() or suffix in self.extensions
                    continue
                if entry.is_symlink() and not os.path.exists(entry.path):
                    self.dead_links.append(entry.path)
                    continue
                status = entry.stat()
                if S_ISDIR(status.st_mode):
                    names.append(entry.name)
                elif suffix in self.extensions and S_ISREG(status.st_mode):
                    name = entry.path[len(self.root) :].replace(os.sep, "/").lstrip("/")
                    files.append(ImageFile(entry.path, name, 0, status.st_size, status.st_mtime_ns))
                else:
                    self.other[suffix or entry.name] += 1
        return files, sorted(names)

    def left_out(self) -> list[str]:
        """Describe what was left out."""
        phrases = []
        for what, counter in (("hidden", +self.hidden), ("other than images", self.other)):
            if names := sorted(counter, key=lambda name: (-counter[name], name)):  # the most frequent first
                phrases.append(f"{counter.total():,} {what} ({enumerated(names, most=3)})")
        return phrases
