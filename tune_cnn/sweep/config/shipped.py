"""The config files that are shipped, which every command takes by their names; and what a sweep of files is called."""

import filecmp
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).parents[2]


def shipped_folder() -> Path:
    """The folder of the shipped config files: in an installed package within it, in a checkout beside it."""
    return next(path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir())


def shipped_names() -> list[str]:
    """`best`, `exp1_1`, ..."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def config_path(text: str | Path) -> Path:
    """The file of this path; if there is none, the shipped one of this name."""
    path = Path(text)
    is_name = not path.exists() and str(path).removesuffix(".yaml") in shipped_names()
    return shipped_folder() / f"{path.stem}.yaml" if is_name else path


def other_file(path: Path) -> Path | None:
    """The user's own file of a shipped one's name, where `init` puts it, if it is another."""
    own = Path("configs", path.name)
    is_other = path.parent == shipped_folder() and own.is_file() and not filecmp.cmp(own, path, shallow=False)
    return own if is_other else None


def sweep_name(paths: Iterable[Path]) -> str:
    """The name of a sweep of these files, if it is given no other: `exp1_1-exp1_2`."""
    return "-".join(dict.fromkeys(path.absolute().stem for path in paths))
