"""The errors that users meet. The command line catches `TuneCnnError` once, prints it, and exits."""

from collections.abc import Mapping, Sequence


class TuneCnnError(Exception):
    """Something that the user can fix. The message names the place, the fault and the remedy."""

    exit_code = 2


class ConfigError(TuneCnnError):
    """One or more faults in a config file, a setting or an option, all reported at once.

    Args:
        place: Where the faults are: a file name, or what was called.
        problems: One line each, `key: fault; remedy`.
        others: The faults of further places; the message holds a block for each.
    """

    def __init__(self, place: str, problems: Sequence[str], others: Mapping[str, Sequence[str]] = {}) -> None:
        super().__init__(place, problems, others)  # by which it is rebuilt when it crosses a process
        self.problems = list(problems)
        self._all = {place: problems, **others}

    def __str__(self) -> str:
        blocks = [
            [f"{place}: {len(problems)} problem" + ("s" if len(problems) != 1 else ""), *problems]
            for place, problems in self._all.items()
        ]
        return "\n".join("\n  ".join(block) for block in blocks)


class DataError(TuneCnnError):
    """Images cannot be found, read or downloaded."""


class ResourceError(TuneCnnError):
    """Cores, GPUs or a port are asked for, and no node has them."""


class StorageError(TuneCnnError):
    """A sweep's folder cannot be used: missing, locked, full, not reachable."""


class ResultError(TuneCnnError):
    """A result file is damaged, or not one of ours."""


class NetworkError(TuneCnnError, ValueError):
    """A custom network cannot be read, built or used."""


class SlowerWarning(UserWarning):
    """What was asked for to save time is not possible here."""
