"""Errors that users can fix. The command line catches `TuneCnnError` in one place, prints it, and exits."""

from collections.abc import Mapping, Sequence


class TuneCnnError(Exception):
    """An error that the user can fix. Its message names the place, the fault and the remedy."""

    exit_code = 2


class ConfigError(TuneCnnError):
    """One or more faults in a config file, a setting or an option, all reported at once.

    Args:
        place: The file or call that has the faults.
        problems: One line each, `key: fault; remedy`.
        others: Faults of further places, by place; each gets a block of its own in the message.
    """

    def __init__(self, place: str, problems: Sequence[str], others: Mapping[str, Sequence[str]] = {}) -> None:
        super().__init__(place, problems, others)  # pickled by args
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
    """No node has the requested cores, GPUs or port."""


class StorageError(TuneCnnError):
    """A folder cannot be used: it is missing, locked, full or unreachable."""


class ResultError(TuneCnnError):
    """A result file is damaged, or was not written by tune_cnn."""


class NetworkError(TuneCnnError, ValueError):
    """A custom network cannot be read, built or used."""


class SlowerWarning(UserWarning):
    """A requested speed-up is not available here."""
