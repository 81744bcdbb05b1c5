"""Ways that take turns, A B A B, each in a process of its own.

What else the machine does then meets all of them alike, so a figure is the ratio of two ways in
the same turn.
"""

import multiprocessing
import resource
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

Steps = Iterator[Any]  # the first is there when all is built and loaded


class Apart:
    """A way in a process of its own, and the seconds from its start to its first step."""

    def __init__(self, function: Callable[..., Steps], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        began = perf_counter()
        context.Process(target=_serve, args=(theirs, function, arguments), daemon=True).start()
        self._connection.recv()
        self.start_up = perf_counter() - began

    def turn(self) -> Any:
        """The next step, and the peak memory so far in 10^6 bytes; None if there is no more."""
        self._connection.send(None)
        return self._connection.recv()


class Here:
    """As `Apart` in this process, without the seconds that one takes; for `--quick`."""

    def __init__(self, function: Callable[..., Steps], *arguments: Any) -> None:
        began = perf_counter()
        self._steps = function(*arguments)
        next(self._steps)
        self.start_up = perf_counter() - began

    def turn(self) -> Any:
        """As `Apart.turn`."""
        return _next(self._steps)


def _serve(connection: Connection, function: Callable[..., Steps], arguments: Any) -> None:
    steps = function(*arguments)
    connection.send(next(steps))
    while True:
        try:
            connection.recv()
        except EOFError:  # the benchmark has ended
            return
        connection.send(_next(steps))


def _next(steps: Steps) -> Any:
    step = next(steps, None)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # getrusage(2)
    return None if step is None else (step, kilobytes * 1024 / 1e6)
