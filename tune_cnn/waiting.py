"""Report on stderr what a command is waiting for, so that it is never silent for long."""

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
    """Report a wait, such as `loading images`, and its length so far, every few seconds; in a log ever less often.

    With `at_once`, also at the start; without it, a short wait prints nothing.
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
            if not sys.stderr.isatty():  # the lines would fill a log
                pause_s = min(passed_s, _MOST_S)

    threading.Thread(target=remind, daemon=True).start()
    try:
        yield
    finally:
        over.set()
