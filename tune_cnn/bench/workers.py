"""Contenders in processes of their own, which work only when it is their turn.

Each has its own memory, so that none finds what another has left there: how the C library keeps freed memory alone is
worth a tenth of a training step and more.
"""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, TypeVar

import torch

from tune_cnn.bench.contenders import CONTENDERS, Round
from tune_cnn.errors import ResourceError
from tune_cnn.settings import Settings

Turn = TypeVar("Turn")

_SPAWN = multiprocessing.get_context("spawn")


class Worker:
    """A process that trains and validates when asked.

    Args:
        contender: Its name.
        settings: The trial's.
        batches: Training batches of a turn.
        threads: It computes with so many.
    """

    def __init__(self, contender: str, settings: Settings, batches: int, threads: int) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        arguments = (theirs, contender, settings, batches, threads)
        self._process = _SPAWN.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()  # which ends the process
        self._process.join()

    def wait(self) -> None:
        """Until it is ready to take a turn.

        Raises:
            DataError: The images cannot be found or read.
        """
        self._answer()

    def ask(self, what: str) -> float:
        """Images per second of a turn, if asked to `train` or to `validate`; its own memory in MB, if for `memory`."""
        self._connection.send(what)
        return float(self._answer())

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise ResourceError(
                "bench: a process died, perhaps for want of memory; run it again with --only and fewer --batches"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def interleaved(
    turns: Mapping[Turn, Callable[[], float]], rounds: int, say: Callable[[int], None]
) -> dict[Turn, list[float]]:
    """What each gives in each round; they take turns, so that a busy moment of the machine meets them all.

    Args:
        turns: What to call, in this order.
        rounds: How often.
        say: Is told the number of each round, from 1, when it begins.
    """
    figures: dict[Turn, list[float]] = {name: [] for name in turns}
    for number in range(1, rounds + 1):
        say(number)
        for name, turn in turns.items():
            figures[name].append(turn())
    return figures


def _serve(connection: Connection, contender: str, settings: Settings, batches: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the end of the parent this
    torch.set_num_threads(threads)
    try:
        work = Round.of(settings, batches)
        runner = CONTENDERS[contender](work)
        counts = work.images.train.count, work.images.validation.count
        turns = {"train": (runner.train, counts[0]), "validate": (runner.validate, counts[1])}
        for turn, _ in turns.values():
            turn()  # the first time, kernels are chosen and memory is fetched
        connection.send("ready")
        while True:
            what = connection.recv()
            if what == "memory":
                connection.send(_own_memory_mb() - work.images.nbytes / 1e6)
                continue
            turn, count = turns[what]
            started = time.perf_counter()
            turn()
            connection.send(count / (time.perf_counter() - started))
    except (EOFError, BrokenPipeError):
        pass  # the parent needs no more
    except Exception as error:
        connection.send(error)


def _own_memory_mb() -> float:
    """What this process alone keeps in memory, without what it shares with others; not a number off Linux."""
    if sys.platform != "linux":
        return float("nan")
    with open("/proc/self/smaps_rollup") as file:
        sizes = {key: value.split() for key, _, value in (line.partition(":") for line in file)}
    return sum(int(sizes[key][0]) for key in ("Private_Clean", "Private_Dirty")) * 1024 / 1e6
