"""Says on stderr what a command waits for, so that it is never silent for long."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tune_cnn.texts import tell

REMIND_S = 2.5


@contextmanager
def waiting(for_what: str, *, at_once: bool = False) -> Iterator[None]:
    """Say every few seconds what is waited for, such as `loading images`, and how long it has been.

    `at_once` also says it at the beginning; else what is done soon says nothing.
    """
    over = threading.Event()
    started = time.monotonic()
    if at_once:
        tell(for_what, file=sys.stderr)

    def remind() -> None:
        while not over.wait(REMIND_S):
            tell(f"{for_what} ({time.monotonic() - started:.0f} s)", file=sys.stderr)

    threading.Thread(target=remind, daemon=True).start()
    try:
        yield
    finally:
        over.set()
