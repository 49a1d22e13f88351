"""Copy the shipped config files into a folder, where you can change them."""

import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path

from tune_cnn.errors import StorageError
from tune_cnn.sweep.config.shipped import shipped_folder
from tune_cnn.texts import tell

EXAMPLE = "tune-cnn init configs"


def add_arguments(parser: ArgumentParser) -> None:
    place = "copy to here (default: configs)"
    parser.add_argument("folder", nargs="?", type=Path, default=Path("configs"), metavar="DIR", help=place)


def run(options: Namespace) -> int:
    shipped = shipped_folder()
    # Not every file below: in a clone, sweeps and notebooks may have left folders here.
    found = [path for pattern in ("*.*", "cluster/*.*") for path in shipped.glob(pattern) if path.is_file()]
    files = sorted(path.relative_to(shipped) for path in found)
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        if there := [str(path) for path in files if (options.folder / path).exists()]:
            raise StorageError(f"{options.folder}: {', '.join(there)} already there; name another folder")
        for path in files:
            (options.folder / path).parent.mkdir(exist_ok=True)
            shutil.copyfile(shipped / path, options.folder / path)
    except OSError as error:
        raise StorageError(f"{options.folder}: cannot be written ({error.strerror}); name another folder") from error
    tell(f"{len(files)} files in {options.folder}; change one, then type: tune-cnn sweep {options.folder}/quick.yaml")
    return 0
