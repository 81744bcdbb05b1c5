"""Deep: read everything that a checkpoint holds, once, and say what its bytes are.

Checksums that the container states are checked, every tensor gets its digest, and NaN and
infinities are counted. Memory stays bounded by a few chunks, whatever the size of a tensor.
"""

import hashlib
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ckpt.compare.special_values import SpecialValues, has_special_values
from ckpt.formats.checked import expect_checksum
from ckpt.formats.checkpoint import Checkpoint, Checksum
from ckpt.formats.stream import tensor_bytes
from ckpt.io.sources import CHUNK
from ckpt.opened import OpenedFile, OpenedState, OpenedVersion
from ckpt.registry.registry import Registry

PENDING_CHUNKS = 8  # that wait for the other thread; bounds the memory


@dataclass(frozen=True, slots=True)
class Examined:
    """What the bytes of one tensor are.

    Attributes:
        digest: Of its contiguous little-endian bytes.
        nan: Elements that are NaN; None of a dtype that has none.
        inf: Elements that are infinite; None likewise.
    """

    digest: str
    nan: int | None
    inf: int | None


@dataclass(frozen=True, slots=True)
class Deep:
    """What reading everything found; nothing in it is damaged.

    Attributes:
        tensors: By key.
        sums: How many checksums of the container were checked.
        sums_absent: How many the writer left out.
        objects: How many objects of the registry were checked; None of a file.
    """

    tensors: Mapping[str, Examined]
    sums: int = 0
    sums_absent: int = 0
    objects: int | None = None


def examine(opened: OpenedState, registry: Registry) -> Deep:
    """Read all of a file or version.

    Raises:
        FormatError: A checksum of the file differs; or a view would grow beyond all proportion.
        IntegrityError: An object of the version is absent or damaged.
    """
    with _Reader() as reader:
        if isinstance(opened, OpenedFile):
            return _examine_file(opened.checkpoint, reader)
        return _examine_version(opened, registry, reader)


def _examine_file(checkpoint: Checkpoint, reader: "_Reader") -> Deep:
    """The tensors first: most fill a range that has a checksum, and are read once for both."""
    waiting = {each.span: each for each in checkpoint.checksums if each.crc32 is not None}
    known: dict[object, Examined] = {}
    tensors = {}
    for entry in checkpoint.entries:
        place = (entry.offset, entry.dtype, entry.shape, entry.stride)
        if place not in known:
            stated = waiting.pop(entry.span, None) if entry.span and entry.nbytes else None
            reading = _Reading(entry.dtype, summed=stated is not None)
            reader.read(tensor_bytes(checkpoint.source, entry), reading, entry.nbytes)
            _expect(checkpoint, stated, reading)
            known[place] = reading.examined()
        tensors[entry.key] = known[place]
    for stated in waiting.values():
        reading = _Reading(None, summed=True)
        span = stated.span
        reader.read(checkpoint.source.stream(span.offset, span.nbytes), reading, span.nbytes)
        _expect(checkpoint, stated, reading)
    absent = sum(each.crc32 is None for each in checkpoint.checksums)
    return Deep(tensors, len(checkpoint.checksums) - absent, absent)


def _examine_version(opened: OpenedVersion, registry: Registry, reader: "_Reader") -> Deep:
    """The store verifies what it hands out; what holds no tensor is read for that alone."""
    manifest = opened.manifest
    known: dict[object, Examined] = {}
    tensors = {}
    for entry in manifest.entries:
        name = str(entry.digest)
        if (name, entry.dtype) not in known:
            reading = _Reading(entry.dtype, digest=name)
            reader.read(opened.source.blob(name, entry.nbytes), reading, entry.nbytes)
            known[name, entry.dtype] = reading.examined()
        tensors[entry.key] = known[name, entry.dtype]
    read = {str(entry.digest) for entry in manifest.entries}
    objects = manifest.objects()
    for name, (nbytes, what) in objects.items():
        if name not in read:
            for _ in registry.store.stream(name, nbytes, f"{opened.name}: {what}"):
                pass
    return Deep(tensors, objects=len(objects))


class _Reading:
    """What is worked out of a range while it is read.

    Args:
        dtype: Of the tensor; None of a range that holds none, which gets no digest.
        summed: Whether its CRC-32 is worked out.
        digest: Where it is known already.
    """

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
        """What takes longest."""
        if self._hasher is not None:
            self._hasher.update(chunk)

    def add(self, chunk: bytes) -> None:
        """All else."""
        if self._summed:
            self.crc32 = zlib.crc32(chunk, self.crc32)
        if self._special is not None:
            self._special.add(chunk)

    def examined(self) -> Examined:
        """Of a tensor that was read to its end."""
        name = self._digest or f"sha256:{self._hasher.hexdigest()}"  # type: ignore[union-attr]
        if self._special is None:
            return Examined(name, None, None)
        return Examined(name, self._special.nan, self._special.inf)


class _Reader:
    """Reads ranges; another thread does the half of the work, so that hashing sets the pace."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)  # one after the other

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def read(self, chunks: Iterable[bytes], reading: _Reading, nbytes: int) -> None:
        """Hand every chunk to `reading`.

        Args:
            chunks: Of the range.
            reading: What wants to know of it.
            nbytes: Of all chunks; of few, another thread costs more than it gives.
        """
        if nbytes <= CHUNK:
            for chunk in chunks:
                reading.hash(chunk)
                reading.add(chunk)
            return
        pending: deque[Future[None]] = deque()
        for chunk in chunks:
            pending.append(self._pool.submit(reading.add, chunk))
            reading.hash(chunk)
            if len(pending) > PENDING_CHUNKS:
                pending.popleft().result()
        for each in pending:
            each.result()


def _expect(checkpoint: Checkpoint, stated: Checksum | None, reading: _Reading) -> None:
    if stated is not None:
        expect_checksum(checkpoint.source.name, stated, reading.crc32, checkpoint.entries)
