"""Objects that are written, and wait for the disk in threads of their own while others are hashed.

Law: when the block ends, each object is synced and has its name, or a failure was raised.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock

from ckpt.io.threads import Threads

_SYNCING = 8  # threads; syncs that wait together share one write of the journal
_UNSYNCED = 32  # open files at most


class Finishing:
    """Objects on their way to their names, by digest."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._room = BoundedSemaphore(_UNSYNCED)
        self._waiting: dict[str, Future[None]] = {}
        self._changing = Lock()

    def add(self, name: str, finish: Callable[[], None]) -> None:
        """Let a thread call `finish`, which syncs the object `name` and gives it its name."""
        self._room.acquire()

        def run() -> None:
            try:
                finish()
            finally:
                self._room.release()

        finished = self._threads.submit(run)
        with self._changing:
            self._waiting[name] = finished

    def wait_for(self, name: str) -> None:
        """Return when an object has its name, if it is on the way to it.

        Raises:
            OSError: It, or another one before, could not be finished.
        """
        with self._changing:
            for done in [each for each, finished in self._waiting.items() if finished.done()]:
                self._waiting.pop(done).result()
            finished = self._waiting.get(name)
        if finished is not None:
            finished.result()

    def wait(self) -> None:
        """Return when all have their names."""
        for finished in self._waiting.values():
            finished.result()


@contextmanager
def finishing() -> Iterator[Finishing]:
    """Finish objects that are added in the block."""
    with Threads(_SYNCING) as threads:
        objects = Finishing(threads)
        yield objects
        objects.wait()
