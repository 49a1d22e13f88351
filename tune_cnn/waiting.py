"""Says on stderr what a command waits for, so that it is never silent for long."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tune_cnn.texts import tell

REMIND_S = 2.5
_MOST_S = 60.0


@contextmanager
def waiting(for_what: str, *, at_once: bool = False) -> Iterator[None]:
    """Say every few seconds, in a log ever less often, what is waited for, such as `loading images`, and how long.

    `at_once` also says it at the beginning; else what is done soon says nothing.
    """
    over = threading.Event()
    started = time.monotonic()
    if at_once:
        tell(for_what, file=sys.stderr)

    def remind() -> None:
        pause_s = REMIND_S
        while not over.wait(pause_s):
            passed_s = time.monotonic() - started
            tell(f"{for_what} ({passed_s:.0f} s)", file=sys.stderr)
            if not sys.stderr.isatty():  # such lines would fill a log
                pause_s = min(passed_s, _MOST_S)

    threading.Thread(target=remind, daemon=True).start()
    try:
        yield
    finally:
        over.set()
