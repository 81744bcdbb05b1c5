"""A place for bytes under paths: the little that a remote must be able to do.

Paths are relative to the remote's URL, with ``/``: ``objects/ab/cdef…``. All methods raise
`RemoteError`, whose message has no credentials, if the place refuses a request or cannot be
reached. After such an error a write may have happened or not; callers find out by reading.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

HELD = 16 << 20  # bytes; up to so many of one object are held in memory


@dataclass(frozen=True, slots=True)
class Stat:
    """What a place tells of an object without sending it.

    Attributes:
        path: Its path.
        nbytes: Its size.
        modified: When it was written, in seconds since 1970, by the clock of the place.
    """

    path: str
    nbytes: int
    modified: float


class Bucket(Protocol):
    """A place for bytes; all methods may be called by several threads."""

    url: str

    @property
    def doubt(self) -> str | None:
        """Why conditions may not hold between machines, which no probe on one of them can see."""

    def get(self, path: str, *, most: int) -> tuple[bytes, str] | None:
        """The bytes of an object and their tag, read at once; None if it does not exist.

        A tag is never that of other bytes.

        Raises:
            RemoteError: It has more than `most` bytes; no more than these are read.
        """

    def stream(self, path: str, offset: int, nbytes: int) -> Iterator[bytes] | None:
        """A range of an object in chunks, at most `nbytes` bytes; None if it does not exist.

        Fewer bytes come if the object is shorter. Callers check what they get.
        """

    def head(self, path: str) -> Stat | None:
        """What is known of an object; None if it does not exist."""

    def put_new(self, path: str, chunks: Iterable[bytes], nbytes: int) -> bool:
        """Create an object of `nbytes` bytes, whole or not at all; False if there is one already.

        An error that `chunks` raises is passed on, and nothing is created.
        Up to `HELD` bytes, exactly one of several callers creates it. Larger ones may be written
        twice, so their path must be the digest of their content.
        """

    def replace(self, path: str, data: bytes, tag: str) -> bool:
        """Replace an object, if its tag is still this one; False if it is not, or it is gone."""

    def overwrite(self, path: str, chunks: Iterable[bytes], nbytes: int) -> None:
        """Write an object, whatever is there: only good bytes over damaged ones."""

    def list(self, prefix: str) -> Iterator[Stat]:
        """The objects below a folder, in any order; those just written may be missing."""

    def delete(self, path: str) -> None:
        """Remove an object, if it exists."""


def new_id() -> str:
    """A name that nobody else chooses."""
    return os.urandom(8).hex()
