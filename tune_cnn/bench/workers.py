"""Contenders in processes of their own, which work only when it is their turn.

Each has its own memory, so that none finds what another has left there, and gets only the images that it needs: after
an array of some 20 MB was freed, glibc keeps what the training steps free, which a script of a user's cannot count on.
"""

import multiprocessing
import signal
import sys
import time
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch

from tune_cnn.bench.contenders import CONTENDERS, Round
from tune_cnn.errors import ResourceError

_SPAWN = multiprocessing.get_context("spawn")


class Worker:
    """A process that trains and validates when asked.

    Args:
        contender: Its name.
        work: Of each turn.
        threads: It computes with so many.
    """

    def __init__(self, contender: str, work: Round, threads: int) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        arguments = (theirs, contender, work, threads)
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
        """Until it is ready to take a turn."""
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


def _serve(connection: Connection, contender: str, work: Round, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the end of the parent this
    torch.set_num_threads(threads)
    try:
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
