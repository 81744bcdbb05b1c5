"""Several requests at once, and the progress of all together."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, as_completed
from threading import Lock
from typing import TypeVar

from ckpt.io.files import Told
from ckpt.io.threads import Threads

AT_ONCE = 8  # requests
_T = TypeVar("_T")


class Progress:
    """The bytes that all threads together have moved.

    Args:
        told: Called with them.
        total: The bytes in all.
    """

    def __init__(self, told: Told, total: int) -> None:
        self.total = total
        self._told, self._done = told, 0
        self._adding = Lock()

    def add(self, nbytes: int) -> None:
        """Note more bytes."""
        with self._adding:
            self._done += nbytes
            self._told(min(self._done, self.total), self.total)

    def passing(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same chunks, noted."""
        for chunk in chunks:
            self.add(len(chunk))
            yield chunk


def in_parallel(work: Callable[[str], _T], names: Iterable[str]) -> dict[str, _T]:
    """The result of each; after the first error no more work begins, and it is raised."""
    with Threads(AT_ONCE) as threads:
        futures: dict[Future[_T], str] = {threads.submit(work, name): name for name in names}
        try:
            return {futures[done]: done.result() for done in as_completed(futures)}
        except BaseException:
            for future in futures:
                future.cancel()
            raise
