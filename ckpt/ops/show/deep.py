"""Read all of a checkpoint, once: verify checksums, hash every tensor, count NaN and infinities.

Memory stays bounded by a few chunks, whatever the size of a tensor.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from ckpt.compare.numbers import has_special_values
from ckpt.compare.special_values import SpecialValues
from ckpt.formats.checked import expect_checksum
from ckpt.formats.checkpoint import Checkpoint, Checksum
from ckpt.formats.stream import tensor_bytes
from ckpt.io import digest
from ckpt.io.sources import CHUNK
from ckpt.io.threads import Threads
from ckpt.opened.states import OpenedFile, OpenedState, OpenedVersion

PENDING_CHUNKS = 8  # waiting for the other thread; bounds the memory


@dataclass(frozen=True, slots=True)
class Examined:
    """The facts about the bytes of one tensor.

    Attributes:
        digest: Of its contiguous little-endian bytes.
        nan: Elements that are NaN; None for a dtype without NaN.
        inf: Elements that are infinite; None likewise.
    """

    digest: str
    nan: int | None
    inf: int | None


@dataclass(frozen=True, slots=True)
class Deep:
    """The result of reading everything, in which nothing was damaged.

    Attributes:
        tensors: By key.
        sums: How many checksums of the container were verified.
        sums_absent: How many checksums the writer left out.
        objects: How many objects of the registry were verified; None for a file.
    """

    tensors: Mapping[str, Examined]
    sums: int = 0
    sums_absent: int = 0
    objects: int | None = None


def examine(opened: OpenedState) -> Deep:
    """Read all of a file or version; damage is an error."""
    with Threads(max_workers=1) as pool:
        if isinstance(opened, OpenedFile):
            return _examine_file(opened.checkpoint, pool)
        return _examine_version(opened, pool)


def _examine_file(checkpoint: Checkpoint, pool: Threads) -> Deep:
    """Tensors first: most fill a range with a checksum, so that one read serves both."""
    waiting = {stated.span: stated for stated in checkpoint.checksums if stated.crc32 is not None}
    known: dict[object, Examined] = {}
    tensors = {}
    for entry in checkpoint.entries:
        place = (entry.offset, entry.dtype, entry.shape, entry.stride)
        if place not in known:
            stated = waiting.pop(entry.span, None) if entry.span and entry.nbytes else None
            reading = _Reading(entry.dtype, summed=stated is not None)
            _read_chunks(pool, tensor_bytes(checkpoint.source, entry), reading, entry.nbytes)
            _expect(checkpoint, stated, reading)
            known[place] = reading.examined()
        tensors[entry.key] = known[place]
    for stated in waiting.values():
        reading = _Reading(None, summed=True)
        span = stated.span
        _read_chunks(pool, checkpoint.source.stream(span.offset, span.nbytes), reading, span.nbytes)
        _expect(checkpoint, stated, reading)
    absent = sum(stated.crc32 is None for stated in checkpoint.checksums)
    return Deep(tensors, len(checkpoint.checksums) - absent, absent)


def _examine_version(opened: OpenedVersion, pool: Threads) -> Deep:
    """The store verifies every object that it hands out; those without a tensor are read too."""
    manifest = opened.manifest
    known: dict[object, Examined] = {}
    tensors = {}
    for entry in manifest.entries:
        name = str(entry.digest)
        if (name, entry.dtype) not in known:
            reading = _Reading(entry.dtype, digest=name)
            chunks = opened.source.stream_object(name, entry.nbytes)
            _read_chunks(pool, chunks, reading, entry.nbytes)
            known[name, entry.dtype] = reading.examined()
        tensors[entry.key] = known[name, entry.dtype]
    read = {str(entry.digest) for entry in manifest.entries}
    objects = manifest.objects()
    for name, (nbytes, what) in objects.items():
        if name not in read:
            for _ in opened.registry.store.stream(name, nbytes, f"{opened.name}: {what}"):
                pass
    return Deep(tensors, objects=len(objects))


class _Reading:
    """The results computed from a range while it is read; without a dtype it gets no digest."""

    def __init__(
        self, dtype: str | None, *, summed: bool = False, digest: str | None = None
    ) -> None:
        self.crc32 = 0
        self._summed = summed
        self._digest = digest
        self._hasher = hashlib.sha256() if dtype is not None and digest is None else None
        special = dtype is not None and has_special_values(dtype)
        self._special = SpecialValues(str(dtype)) if special else None

    def hash(self, chunk: bytes) -> None:
        """Hash a chunk, the slowest step."""
        if self._hasher is not None:
            self._hasher.update(chunk)

    def add(self, chunk: bytes) -> None:
        """Do everything else with a chunk."""
        if self._summed:
            self.crc32 = digest.crc32(chunk, self.crc32)
        if self._special is not None:
            self._special.add(chunk)

    def examined(self) -> Examined:
        """The results for a tensor that was read to its end."""
        name = self._digest
        if name is None:
            assert self._hasher is not None  # what is examined is a tensor, and has a dtype
            name = f"sha256:{self._hasher.hexdigest()}"
        if self._special is None:
            return Examined(name, None, None)
        return Examined(name, self._special.nan, self._special.inf)


def _read_chunks(pool: Threads, chunks: Iterable[bytes], reading: _Reading, nbytes: int) -> None:
    """Hand every chunk to `reading`; a second thread shares the work, so hashing sets the pace.

    A second thread does not pay off for few bytes.
    """
    if nbytes <= CHUNK:
        for chunk in chunks:
            reading.hash(chunk)
            reading.add(chunk)
        return
    pending: deque[Future[None]] = deque()
    for chunk in chunks:
        pending.append(pool.submit(reading.add, chunk))
        reading.hash(chunk)
        if len(pending) > PENDING_CHUNKS:
            pending.popleft().result()
    for future in pending:
        future.result()


def _expect(checkpoint: Checkpoint, stated: Checksum | None, reading: _Reading) -> None:
    if stated is not None:
        expect_checksum(checkpoint.source.name, stated, reading.crc32, checkpoint.entries)
