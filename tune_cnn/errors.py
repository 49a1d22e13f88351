"""The errors that users meet. The command line catches `TuneCnnError` once, prints it, and exits.

TuneCnnError                exit code 2 unless a subclass says otherwise
├── ConfigError             one or more faults in a config file, a setting or an option, all listed
├── DataError               images that cannot be found, read or downloaded
├── ResourceError           cores, GPUs or a port that are asked for, and that no node has
├── StorageError            a sweep's folder cannot be used: missing, locked, full, not reachable
├── ResultError             a result file is damaged, or not one of ours
├── NetworkError            an own network cannot be read, built or used
└── TrialFailedError        exit code 1: a training failed for good
"""

from collections.abc import Sequence


class TuneCnnError(Exception):
    """Something that the user can mend. The message names the place, the fault and the remedy."""

    exit_code = 2


class ConfigError(TuneCnnError):
    """All the faults of one place (a file, a call, an option), reported at once.

    Args:
        place: Where the faults are: a file name, or what was called.
        problems: One line each, `key: fault; remedy`.
        others: The faults of further places; the message holds a block for each.
    """

    def __init__(self, place: str, problems: Sequence[str], others: Sequence["ConfigError"] = ()) -> None:
        self.place = place
        self.problems = list(problems)
        self.others = list(others)
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        block = "\n".join([f"{place}: {count}", *(f"  {problem}" for problem in problems)])
        super().__init__("\n".join([block, *map(str, others)]))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, list[str], list["ConfigError"]]]:
        # Exceptions are rebuilt from their message when they cross a process; this one has several arguments.
        return type(self), (self.place, self.problems, self.others)

    @classmethod
    def joined(cls, errors: Sequence["ConfigError"]) -> "ConfigError":
        """One error for at least one: its message is theirs, one block under the other."""
        first, *rest = errors
        return cls(first.place, first.problems, [*first.others, *rest])


class DataError(TuneCnnError):
    """Images cannot be found, read or downloaded."""


class ResourceError(TuneCnnError):
    """Cores, GPUs or a port are asked for, and no node has them."""


class StorageError(TuneCnnError):
    """A sweep's folder cannot be used."""


class ResultError(TuneCnnError):
    """A result file is damaged, or not one of ours."""


class NetworkError(TuneCnnError, ValueError):
    """An own network cannot be read, built or used."""


class TrialFailedError(TuneCnnError):
    """A training failed for good."""

    exit_code = 1
