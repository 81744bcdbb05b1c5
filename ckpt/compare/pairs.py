"""Compare the bytes of many pairs of tensors, and the values of those that differ.

Streamed on all cores in bounded memory: a large tensor that is contiguous in its file is cut into
pieces, small tensors are read together. Equal bytes cost reading and `memcmp`. The figures do not
depend on the number of cores: pieces are joined in their order.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ckpt.compare.keys import Pair
from ckpt.compare.values import Tally, ValueDiff
from ckpt.dtypes import itemsize
from ckpt.errors import IntegrityError
from ckpt.formats.stream import tensor_bytes
from ckpt.io import digest
from ckpt.io.files import Told, untold
from ckpt.io.threads import Threads
from ckpt.opened.states import OpenedFile, OpenedState
from ckpt.tensors import TensorEntry

PIECE_ELEMENTS = 1 << 22
JOB_BYTES = 1 << 24  # for one thread at a time; less needs no thread
THREADS = 8  # at most: more would not read faster from memory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sides:
    """Where the bytes of both sides are."""

    before: OpenedState
    after: OpenedState


@dataclass(frozen=True, slots=True)
class _Piece:
    """Elements of one pair; all pieces of a pair have its `number`.

    Attributes:
        divisible: Whether both sides have these bytes in their file, contiguous.
    """

    number: int
    pair: Pair
    first: int
    count: int
    divisible: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes on both sides."""
        a, b = self.pair
        return self.count * (itemsize(a.dtype) + itemsize(b.dtype))


def equal_bytes(sides: Sides, pairs: Sequence[Pair], *, told: Told = untold) -> dict[str, bool]:
    """Whether the tensors of each pair are bitwise equal, by key.

    Args:
        sides: Two files.
        pairs: The same key, dtype and shape on both sides.
        told: Called with the progress.
    """
    distinct = _distinct(pairs)
    other: set[int] = set()

    def look(pieces: list[_Piece]) -> list[None]:
        if not _equal_at_once(sides, pieces):
            for piece in pieces:
                if piece.number not in other and any(a != b for a, b in _blocks(sides, piece)):
                    other.add(piece.number)
        return []

    for _ in _in_threads(look, _pieces(sides, list(distinct)), told):
        pass
    equal = [number not in other for number in range(len(distinct))]
    return {
        a.key: same for same, alike in zip(equal, distinct.values(), strict=True) for a, _ in alike
    }


def measure(
    sides: Sides, pairs: Sequence[Pair], *, told: Told = untold
) -> list[tuple[Pair, ValueDiff]]:
    """How far apart the values of each pair are.

    Args:
        sides: Files or versions.
        pairs: The same shape, and dtypes that are `comparable`.
        told: Called with the progress.

    Raises:
        FormatError: A view would grow out of proportion.
        IntegrityError: An object of a version is missing or damaged.
    """
    distinct = _distinct(pairs)
    tallies = [Tally(a.dtype, b.dtype) for a, b in distinct]

    def tally(piece: _Piece) -> tuple[int, Tally]:
        found = Tally(piece.pair[0].dtype, piece.pair[1].dtype)
        for before, after in _blocks(sides, piece):
            found.add(before, after)
        return piece.number, found

    def tally_all(pieces: list[_Piece]) -> list[tuple[int, Tally]]:
        return [*map(tally, pieces)]

    for number, found in _in_threads(tally_all, _pieces(sides, list(distinct)), told):
        tallies[number].join(found)
    return [
        (pair, tally.found())
        for tally, alike in zip(tallies, distinct.values(), strict=True)
        for pair in alike
    ]


def hashed(
    side: OpenedFile, entries: Iterable[TensorEntry], *, told: Told = untold
) -> dict[str, str]:
    """The digests of some entries of a file, by key."""
    chosen = list(entries)
    pieces = [_Piece(n, (entry, entry), 0, entry.numel) for n, entry in enumerate(chosen)]

    def hash_all(pieces: list[_Piece]) -> list[str]:
        source = side.checkpoint.source
        return [digest.of_chunks(tensor_bytes(source, piece.pair[0])) for piece in pieces]

    found = _in_threads(hash_all, pieces, told)
    return {entry.key: name for entry, name in zip(chosen, found, strict=True)}


def _distinct(pairs: Sequence[Pair]) -> dict[Pair, list[Pair]]:
    """The pairs grouped by all but their keys: tied tensors are read once."""
    found: dict[object, list[Pair]] = {}
    for a, b in pairs:
        places = (a.dtype, a.shape, a.offset, a.stride, a.digest), (b.offset, b.stride, b.digest)
        found.setdefault((*places, b.dtype, b.shape), []).append((a, b))
    return {alike[0]: alike for alike in found.values()}


def _pieces(sides: Sides, pairs: Sequence[Pair]) -> Iterator[_Piece]:
    for number, (a, b) in enumerate(pairs):
        divisible = _divisible(sides.before, a) and _divisible(sides.after, b)
        step = PIECE_ELEMENTS if divisible else max(a.numel, 1)
        for first in range(0, a.numel, step):
            yield _Piece(number, (a, b), first, min(step, a.numel - first), divisible)


def _divisible(side: OpenedState, entry: TensorEntry) -> bool:
    """Whether reading a part costs no more than its share.

    It does for a version, whose objects are verified as a whole, for a strided tensor, which is
    gathered, and for bytes behind the end of the file, which are computed.
    """
    return (
        isinstance(side, OpenedFile)
        and entry.span is not None
        and entry.span.end <= side.checkpoint.source.size
    )


def _stream(side: OpenedState, entry: TensorEntry, piece: _Piece) -> Iterator[bytes]:
    if not isinstance(side, OpenedFile):
        return side.source.stream_object(str(entry.digest), entry.nbytes)
    source, width = side.checkpoint.source, itemsize(entry.dtype)
    if piece.count == entry.numel or entry.span is None:
        return tensor_bytes(source, entry)
    return source.stream(entry.span.offset + piece.first * width, piece.count * width)


def _blocks(sides: Sides, piece: _Piece) -> Iterator[tuple[bytes, bytes]]:
    """Chunks of both sides, cut at the same elements.

    Both sides are read to their ends: the store has verified an object only then.

    Raises:
        IntegrityError: A side ended early.
    """
    a, b = piece.pair
    before, after = _stream(sides.before, a, piece), _stream(sides.after, b, piece)
    widths = itemsize(a.dtype), itemsize(b.dtype)
    x = y = b""
    left = piece.count
    while True:
        x, y = _filled(x, before, widths[0]), _filled(y, after, widths[1])
        count = min(len(x) // widths[0], len(y) // widths[1])
        if not count:
            break
        left -= count
        yield x[: count * widths[0]], y[: count * widths[1]]
        x, y = x[count * widths[0] :], y[count * widths[1] :]
    for stream in (before, after):
        for _ in stream:
            pass
    if left:
        raise IntegrityError(f"{a.key}: {left:,} of {piece.count:,} elements could not be read")


def _filled(begun: bytes, stream: Iterator[bytes], width: int) -> bytes:
    """At least one whole element, unless the stream ends."""
    while len(begun) < width:
        chunk = next(stream, None)
        if chunk is None:
            break
        begun += chunk  # may be empty
    return begun


def _equal_at_once(sides: Sides, pieces: Sequence[_Piece]) -> bool:
    """Whether whole tensors at the same distances in both files are equal, with all between them.

    One reading of thousands of small tensors is far faster than one for each.
    """
    pairs = [p.pair for p in pieces if p.divisible and p.count == p.pair[0].numel]
    if len(pieces) < 2 or len(pairs) < len(pieces):
        return False
    begin, end = min(a.position for a, _ in pairs), max(a.position + a.nbytes for a, _ in pairs)
    shifts = {b.position - a.position for a, b in pairs}
    if len(shifts) > 1 or end - begin > JOB_BYTES:
        return False
    streams = (
        side.checkpoint.source.stream(at, end - begin)
        for side, at in ((sides.before, begin), (sides.after, begin + shifts.pop()))
    )
    return all(x == y for x, y in zip(*streams, strict=True))


def _in_threads(
    work: Callable[[list[_Piece]], list[T]], pieces: Iterable[_Piece], told: Told
) -> Iterator[T]:
    """The results of `work`, in the order of the pieces."""
    jobs = list(_jobs(pieces))
    total, done = sum(nbytes for _, nbytes in jobs), 0
    if len(jobs) < 2:
        for job, _ in jobs:
            yield from work(job)
        return
    with Threads(min(THREADS, os.cpu_count() or 1)) as pool:
        works = pool.map(work, [job for job, _ in jobs])
        for (_, nbytes), results in zip(jobs, works, strict=True):
            yield from results
            done += nbytes
            told(done, total)


def _jobs(pieces: Iterable[_Piece]) -> Iterator[tuple[list[_Piece], int]]:
    """The pieces for one thread at a time, and their bytes."""
    job: list[_Piece] = []
    nbytes = 0
    for piece in pieces:
        job.append(piece)
        nbytes += piece.nbytes
        if nbytes >= JOB_BYTES:
            yield job, nbytes
            job, nbytes = [], 0
    if job:
        yield job, nbytes
