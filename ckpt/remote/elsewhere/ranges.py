"""A file elsewhere as a source of bytes: any range is one request, and small ones share one.

Laws: a range that breaks off is asked for again from the byte where it broke; at most `ATTEMPTS`
requests in a row bring nothing. No byte is returned of a file that changed since it was opened.
"""

import random
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import NoReturn, Protocol, TypeVar

from ckpt.errors import FormatError, RemoteError
from ckpt.io.rights import EVERYBODY, Rights
from ckpt.io.sources import OpenSource, Part

BLOCK = 1 << 16  # bytes; a small read brings so many
ATTEMPTS = 5
PAUSE = 0.25  # seconds, doubled with each attempt
MOST_PAUSE = 20.0  # seconds, whatever a server asks for
_PROGRESS = 1 << 20  # bytes after which attempts are counted from 0 again
_KEPT = 1 << 26  # bytes of small reads
_NEAR = 1 << 13  # bytes between two ranges that are cheaper to fetch than another request
_SIDE_BY_SIDE = 12  # requests
MOST_RANGES = 20_000  # requests for the records of one file; each takes a few milliseconds
T = TypeVar("T")


class TransientError(Exception):
    """A request failed that may succeed when it is repeated.

    Args:
        message: What happened.
        seconds: How long the server asks to wait.
    """

    def __init__(self, message: str, seconds: float = 0.0) -> None:
        super().__init__(message)
        self.seconds = seconds


class Patience:
    """Waits after failed requests for one thing, longer each time, and then gives up."""

    def __init__(self, name: str) -> None:
        self._name, self._failed = name, 0

    def wait(self, error: TransientError, progress: int = 0) -> None:
        """Sleep before the next attempt.

        Args:
            error: Why the last one failed.
            progress: The bytes that it brought all the same.

        Raises:
            RemoteError: It was the last one.
        """
        self._failed = 1 if progress >= _PROGRESS else self._failed + 1
        if self._failed >= ATTEMPTS:
            raise RemoteError(
                f"{self._name}: {error}, in {ATTEMPTS} attempts", hint="try again later"
            ) from error
        # Clients that failed together must not come back together.
        pause = random.uniform(0, PAUSE * 2**self._failed)
        time.sleep(min(max(pause, error.seconds), MOST_PAUSE))


def patiently(name: str, call: Callable[[], T]) -> T:
    """What `call` returns, repeated while it fails for a reason that may pass."""
    patience = Patience(name)
    while True:
        try:
            return call()
        except TransientError as error:
            patience.wait(error)


class RemoteFile(Protocol):
    """A file elsewhere, of which any range can be asked for.

    Attributes:
        name: How messages call it; without credentials.
        size: Its bytes.
    """

    name: str
    size: int

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """A range in chunks, in one request; never more than `nbytes`.

        Raises:
            TransientError: It broke off, or the server is busy.
            RemoteError: The file changed, is gone, or is refused.
        """

    def close(self) -> None:
        """End its connections."""


class RangedSource(OpenSource):
    """A file elsewhere, opened for ranged reads; threads may read it together.

    Args:
        file: The file.
        base_name: Its name among the files of its checkpoint.
        head: Its first bytes, if they are known.
    """

    def __init__(self, file: RemoteFile, base_name: str, head: bytes = b"") -> None:
        self.name, self.size = file.name, file.size
        self.parts = (Part(base_name, 0, file.size),)
        self._file = file
        self._lock = Lock()
        self._begins: list[int] = []
        self._pieces: list[bytes] = []
        self._held = 0
        self._keep(0, head)

    @property
    def rights(self) -> Rights:
        """Nothing elsewhere says who may read a copy here."""
        return EVERYBODY

    def close(self) -> None:
        self._file.close()

    def expect_unchanged(self) -> None:
        """Every answer was compared with the first one."""

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        known = self._known(offset)[:nbytes]
        if known:
            yield known
        offset, nbytes = offset + len(known), nbytes - len(known)
        if not nbytes:
            return
        if offset + nbytes > self.size:
            self._outside(offset + nbytes)
        if nbytes >= BLOCK:
            yield from self._fetched(offset, nbytes)
            return
        begin = max(0, min(offset, self.size - BLOCK))
        yield self._block(begin, min(BLOCK, self.size - begin))[offset - begin :][:nbytes]

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch small ranges side by side; those that are close together in one request."""
        wanted: list[tuple[int, int]] = []
        for begin, end in sorted(ranges):
            if len(self._known(begin)) >= end - begin:
                continue
            if wanted and begin - wanted[-1][1] <= _NEAR and end - wanted[-1][0] <= _KEPT // 16:
                wanted[-1] = (wanted[-1][0], max(end, wanted[-1][1]))
            else:
                wanted.append((begin, end))
        if len(wanted) > MOST_RANGES:
            raise FormatError(
                f"{self.name}: {len(wanted):,} records, too many to ask for each",
                hint="download the file, and name that",
            )
        if len(wanted) > 1:
            from ckpt.io.threads import Threads

            with Threads(_SIDE_BY_SIDE) as side:
                list(side.map(lambda each: self._block(each[0], each[1] - each[0]), wanted))

    def _block(self, offset: int, nbytes: int) -> bytes:
        data = b"".join(self._fetched(offset, nbytes))
        self._keep(offset, data)
        return data

    def _fetched(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """A range, in as many requests as it takes."""
        end, patience = offset + nbytes, Patience(self.name)
        while offset < end:
            begin = offset
            try:
                for chunk in self._file.stream(offset, end - offset):
                    offset += len(chunk)
                    yield chunk
                if offset < end:
                    raise TransientError(f"the connection broke at byte {offset:,}")
            except TransientError as error:
                patience.wait(error, offset - begin)

    def _known(self, offset: int) -> bytes:
        """The bytes from `offset` on, as far as they came already."""
        with self._lock:
            index = bisect_right(self._begins, offset) - 1
            return self._pieces[index][offset - self._begins[index] :] if index >= 0 else b""

    def _keep(self, offset: int, data: bytes) -> None:
        with self._lock:
            if self._held > _KEPT:
                self._begins.clear()
                self._pieces.clear()
                self._held = 0
            self._held += len(data)
            index = bisect_right(self._begins, offset)
            self._begins.insert(index, offset)
            self._pieces.insert(index, data)

    def _outside(self, end: int) -> NoReturn:
        raise FormatError(f"{self.name}: ends at byte {self.size:,}, expected {end:,}")
