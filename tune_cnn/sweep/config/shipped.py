"""The shipped config files, which every command accepts by name; and the default name of a sweep."""

import filecmp
import os
from collections.abc import Iterable
from pathlib import Path

from tune_cnn.files import path_of

_PACKAGE = Path(__file__).parents[2]


def shipped_folder() -> Path:
    """The folder of the shipped config files: inside the installed package, or beside the package in a checkout."""
    return next(path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir())


def shipped_names() -> list[str]:
    """The names of the shipped config files: `best`, `exp1_1`, ..."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def config_path(text: str | Path) -> Path:
    """The file at this path; if there is none, the shipped file of this name."""
    path = path_of(text)
    is_name = not os.path.isfile(path) and str(path).removesuffix(".yaml") in shipped_names()
    return shipped_folder() / f"{path.stem}.yaml" if is_name else path


def other_file(path: Path) -> Path | None:
    """The user's own file with the name of this shipped one, where `init` puts it, if the contents differ."""
    own = Path("configs", path.name)
    is_other = path.parent == shipped_folder() and own.is_file() and not filecmp.cmp(own, path, shallow=False)
    return own if is_other else None


def sweep_name(paths: Iterable[Path]) -> str:
    """The default name of a sweep of these files, such as `exp1_1-exp1_2`."""
    return "-".join(dict.fromkeys(path.absolute().stem for path in paths))
