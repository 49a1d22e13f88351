"""Images in a folder, with a subfolder for each class: listed without opening them, then decoded."""

import os
from collections import Counter
from collections.abc import Sequence
from stat import S_ISDIR, S_ISREG

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
        images, scaled = decode(chosen, *self.data.in_size[1:])
        return super().first(count, download) if scaled else (ImageSet(images, _labels(chosen)), len(fitted))


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
        raise DataError(f"{root}: there is no such folder; check the path of image_folder")
    try:
        return _list(root)
    except OSError as error:  # a broken link, too
        fault = f"cannot be read ({error.strerror})"
        raise DataError(f"{error.filename}: {fault}; make it readable, or take it out") from error


def _list(root: str) -> tuple[Found, list[ImageFile]]:
    listing = _Listing(root)
    beside, folders = listing.entries(root)
    if not {"train", "test"}.issubset(folders):
        raise DataError(f"{root}: it must hold folders train/ and test/, and holds {enumerated(folders) or 'neither'}")
    train, test = listing.classes("train"), listing.classes("test")
    if (single := sorted(train.keys() ^ test.keys())) and not listing.problems:
        fault = f"only one of train/ and test/ has {enumerated(single)}"
        listing.problems.append(f"{root}: {fault}; give every class a folder of the same name in both")
    if listing.problems:
        raise DataError("\n".join(listing.problems))
    left_out = [f"the folder {name}" for name in folders if name not in ("train", "test")]
    left_out += [f"{counted(len(beside), 'image')} beside train/ and test/"] if beside else []
    if others := sorted(+listing.others, key=lambda name: (-listing.others[name], name)):  # the most frequent first
        left_out.append(f"{listing.others.total():,} hidden or no images ({enumerated(others, most=3)})")
    names = sorted(train)
    fitted, tested = (
        [file._replace(label=label) for label, name in enumerate(names) for file in part[name]]
        for part in (train, test)
    )
    files = fitted + tested
    # A name that is not UTF-8 cannot be written to results and reports.
    classes = tuple(os.fsencode(name).decode(errors="replace") for name in names)
    settings = {"fingerprint": digest("".join(f"{file.name}\0{file.size_bytes}\n" for file in files))}
    return Found(root, len(fitted), len(tested), len(classes), classes, left_out, settings), files


class _Listing:
    """One pass over a folder that collects faults of its structure and counts what is left out."""

    def __init__(self, root: str) -> None:
        kinds = Image.registered_extensions()
        self.extensions = {suffix for suffix, kind in kinds.items() if kind in Image.OPEN.keys() - _NOT_DECODED}
        self.root = root
        self.problems: list[str] = []
        self.others = Counter[str]()  # what is no image by its file name extension, what is hidden by its name

    def classes(self, part: str) -> dict[str, list[ImageFile]]:
        """List the images in `train/` or `test/` by class, which is the name of their folder."""
        place = os.path.join(self.root, part)
        loose, names = self.entries(place)
        classes = {name: self.files(os.path.join(place, name)) for name in names}
        if loose or len(classes) < 2 or not all(classes.values()):
            wanted = "it must hold only folders of images, one for each of two or more classes"
            by_size = sorted(classes.items(), key=lambda item: len(item[1]))  # empty ones first
            holds = [f"{name} ({counted(len(files), 'image')})" for name, files in by_size]
            holds = [counted(len(loose), "image")] * bool(loose) + holds
            self.problems.append(f"{place}: {wanted}; it holds {enumerated(holds) or 'nothing'}")
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
                    self.others[entry.name] += entry.is_dir() or suffix in self.extensions
                    continue
                status = entry.stat()
                if S_ISDIR(status.st_mode):
                    names.append(entry.name)
                elif suffix in self.extensions and S_ISREG(status.st_mode):
                    name = entry.path[len(self.root) :].replace(os.sep, "/").lstrip("/")
                    files.append(ImageFile(entry.path, name, 0, status.st_size, status.st_mtime_ns))
                else:
                    self.others[suffix or entry.name] += 1
        return files, sorted(names)
