"""Says on stderr what a command waits for, so that it is never silent for long."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tune_cnn.texts import tell

REMIND_S = 2.5


def _say(message: str) -> None:
    tell(message, file=sys.stderr)


@contextmanager
def waiting(for_what: str, *, at_once: bool = False, say: Callable[[str], object] = _say) -> Iterator[None]:
    """Say every few seconds what is waited for, and how long it has been.

    Args:
        for_what: Such as `loading images`.
        at_once: Also say it at the beginning; else what is done soon says nothing.
        say: Where.
    """
    over = threading.Event()
    started = time.monotonic()
    if at_once:
        say(for_what)

    def remind() -> None:
        while not over.wait(REMIND_S):
            say(f"{for_what} ({time.monotonic() - started:.0f} s)")

    threading.Thread(target=remind, daemon=True).start()
    try:
        yield
    finally:
        over.set()
