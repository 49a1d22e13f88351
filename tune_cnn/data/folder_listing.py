"""Listing of a folder's images without opening them, and messages about what is wrong with the folder."""

import os
from collections import Counter
from collections.abc import Sequence
from unicodedata import normalize

from PIL import Image

from tune_cnn.data.decoding import ImageFile
from tune_cnn.data.source import Found
from tune_cnn.errors import DataError
from tune_cnn.texts import counted, digest, enumerated

# Lower-case names that operating systems and NAS boxes leave in folders, besides those that begin with a dot.
_SYSTEM_NAMES = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin"}
_SYSTEM_NAMES |= {"system volume information", "lost+found", "__pycache__"}
# Formats that Pillow knows but cannot decode by itself.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# Other common names of train/ and test/, in lower case.
_OTHER_NAMES = {
    "train": {"train", "training", "train_set", "training_set", "trn"},
    "test": {"test", "testing", "test_set", "val", "valid", "validation", "dev", "eval"},
}


# Phrases about what is left out inside the classes: {0} is the count, {1} some names, {2} the plural s.
_LEFT_OUT = {
    "inner": "{1} inside the classes as classes of their own",
    "hidden": "{0:,} hidden ({1})",
    "other": "{0:,} other than images ({1})",
    "loop": "{0:,} link{2} to an outer folder ({1})",
}


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
    if problems := [_missing(root, part, folders) for part in ("train", "test") if part not in folders]:
        raise DataError("\n".join(problems))
    train, test = listing.split("train"), listing.split("test")
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
        left_out + listing.phrases(),
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
        self.left_out = {kind: Counter[str]() for kind in _LEFT_OUT}

    def split(self, part: str) -> dict[str, list[ImageFile]]:
        """List the images in `train/` or `test/` by class, which is the name of their folder."""
        place = os.path.join(self.root, part)
        loose, names = self.entries(place)
        classes = {name: self._files(os.path.join(place, name)) for name in names}
        inner = {name: _branches(files) for name, files in classes.items() if files}
        wanted = "it must hold one folder of images for each class"
        if loose:
            first = os.path.basename(loose[0].path)
            beside = f"beside {_class_folders(names)}" if names else "and there are no class folders"
            fault = f"{counted(len(loose), 'image')} directly in it ({first}), {beside}; move each into its class"
        elif not names:
            fault = f"nothing is in it; {wanted}"
        elif empty := [name for name in names if not classes[name]]:
            alone = _Listing(self.root)
            for name in empty:
                alone._files(os.path.join(place, name))
            there = "; ".join(alone.phrases())
            fault = f"no images in {_class_folders(empty)}{there and f', but {there}'}; fill or remove what is empty"
        elif len(names) == 1:
            around, below = inner[names[0]]
            fault = f"only one class, {names[0]}, so there is nothing to tell apart; "
            fault += f"move the folders {enumerated(below)} of {around} up into {part}/" if below else wanted
        else:
            self.left_out["inner"].update(name for _, below in inner.values() for name in below)
            return classes
        self.problems.append(f"{place}: {fault}")
        return classes

    def _files(self, place: str, above: tuple[str, ...] = ()) -> list[ImageFile]:
        """List all images below a folder; links are followed, but not in cycles."""
        here = os.path.realpath(place)
        if here in above:
            self.left_out["loop"][os.path.basename(place)] += 1
            return []
        files, names = self.entries(place)
        for name in names:
            files += self._files(os.path.join(place, name), (*above, here))
        return sorted(files, key=lambda file: os.path.split(file.path))

    def entries(self, place: str) -> tuple[list[ImageFile], list[str]]:
        """List the images and the names of the subfolders directly in a folder, without hidden ones."""
        files, names = [], []
        with os.scandir(place) as entries:
            for entry in entries:
                suffix = os.path.splitext(entry.name)[1].lower()
                is_hidden = entry.name.startswith(".") or entry.name.lower() in _SYSTEM_NAMES
                if entry.is_symlink() and not os.path.exists(entry.path):
                    self.dead_links += [] if is_hidden else [entry.path]
                elif is_hidden:
                    self.left_out["hidden"][entry.name] += entry.is_dir() or suffix in self.extensions
                elif entry.is_dir():
                    names.append(entry.name)
                elif suffix in self.extensions and entry.is_file():
                    status = entry.stat()
                    name = entry.path[len(self.root) :].replace(os.sep, "/").lstrip("/")
                    files.append(ImageFile(entry.path, name, 0, status.st_size, status.st_mtime_ns))
                else:
                    self.left_out["other"][suffix or entry.name] += 1
        return files, sorted(names)

    def phrases(self) -> list[str]:
        """Describe what was left out."""
        phrases = []
        for kind, counter in self.left_out.items():
            named = sorted((-count, name) for name, count in counter.items() if count)  # the most frequent first
            if named:
                names = enumerated([name for _, name in named], most=3)
                phrases.append(_LEFT_OUT[kind].format(counter.total(), names, "s" * (counter.total() != 1)))
        return phrases


def _class_folders(names: Sequence[str]) -> str:
    return f"{counted(len(names), 'class folder')} ({enumerated(names)})"


def _branches(files: Sequence[ImageFile]) -> tuple[str, list[str]]:
    """Innermost folder that holds all of some images, and the names of its subfolders that hold any."""
    folders = {os.path.dirname(file.name) for file in files}
    around = os.path.commonpath(folders)
    return around, sorted({os.path.relpath(folder, around).split(os.sep)[0] for folder in folders} - {"."})


def _missing(root: str, part: str, folders: Sequence[str]) -> str:
    """Message about a folder without `train/` or `test/`, with a hint at what is there instead."""
    hint = ""
    alike = [name for name in folders if name.lower() in _OTHER_NAMES[part] and name not in ("train", "test")]
    around = os.path.dirname(root)
    if alike:
        hint = f"; rename {alike[0]} to {part}"
    elif inner := [name for name in folders if os.path.isdir(os.path.join(root, name, "train"))]:
        hint = f"; there is one in {inner[0]}, so write image_folder:{os.path.join(root, inner[0])}"
    elif os.path.basename(root) in ("train", "test") and os.path.isdir(os.path.join(around, part)):
        hint = f"; write image_folder:{around}"
    elif folders:
        hint = f"; {root} holds only {enumerated(folders)}"
    return (
        f"{os.path.join(root, part)}: there is no such folder; it must hold one folder of images for each class{hint}"
    )
