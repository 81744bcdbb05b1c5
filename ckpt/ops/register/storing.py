"""Store the bytes of a checkpoint as objects: its tensors, and the skeleton around them."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

from ckpt.errors import IntegrityError
from ckpt.formats.checked import CheckedSource
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.paths import checkpoint_name
from ckpt.formats.stream import tensor_bytes
from ckpt.io import digest
from ckpt.io.files import Told
from ckpt.io.sources import ByteSource
from ckpt.io.threads import Threads
from ckpt.ops.register.given import Given
from ckpt.registry.manifest import HASHED_WHOLE, Hole, Manifest, Skeleton
from ckpt.registry.store.new_objects import Objects, Read
from ckpt.registry.store.objects import ObjectStore
from ckpt.registry.store.version import VersionSource
from ckpt.side_files import Readable, SideFile
from ckpt.tensors import Span, TensorEntry

Map = Callable[..., Iterator[Any]]
_WORTH_THREADS = 32 << 20  # bytes; below, threads cost more time than they save


def store(
    checkpoint: Checkpoint, given: Given, beside: Iterable[Readable], objects: Objects, told: Told
) -> Manifest:
    """Store the file's tensors and skeleton, and its side files; the manifest names them."""
    source = checkpoint.source
    holes = _store_tensors(checkpoint, objects, told)
    is_small = source.size <= HASHED_WHOLE and not given.origin  # see `compared`
    skeleton = objects.put_skeleton(*skeleton_of(source, checkpoint.spans))
    is_single = len(source.parts) == 1
    return Manifest(
        format=checkpoint.format,
        file_name=source.parts[0].name if is_single else checkpoint_name(given.path),
        file_digest=digest.of_chunks(source.stream(0, source.size)) if is_small else None,
        skeleton=Skeleton(source.size, tuple(holes), skeleton),
        entries=tuple(_digested(checkpoint, holes, objects)),
        inside=given.inside,
        rest=checkpoint.rest,
        files=() if is_single else tuple((part.name, part.nbytes) for part in source.parts),
        side_files=tuple(
            SideFile(file.name, file.nbytes, objects.put(file.chunks, file.nbytes))
            for file in beside
        ),
    )


def compared(manifest: Manifest, store: ObjectStore, given: Given) -> Manifest:
    """The manifest with the digest of the whole file, after a look at what was stored.

    The stored bytes are read again, in the order of the files: they came in another.

    Raises:
        IntegrityError: A file has another SHA-256 than its server states.
    """
    stored = VersionSource(given.source.name, manifest, store)
    for part in stored.parts:
        stated = given.digests.get(part.name)
        if stated is None:
            continue
        found = digest.of_chunks(stored.stream(part.offset, part.nbytes))
        if found != f"sha256:{stated}":
            raise IntegrityError(
                f"{given.source.name}: {part.name}: {found}, its server states sha256:{stated}",
                hint="nothing was registered; try again later",
            )
    if stored.size > HASHED_WHOLE:
        return manifest
    return replace(manifest, file_digest=digest.of_chunks(stored.stream(0, stored.size)))


def skeleton_of(source: ByteSource, spans: Iterable[Span]) -> tuple[Read, int]:
    """The bytes around the spans, and their number."""
    around, position = [], 0
    for span in spans:
        around.append(Span(position, span.offset - position))
        position = span.end
    around.append(Span(position, source.size - position))

    def read() -> Iterator[bytes]:
        return chain.from_iterable(source.stream(gap.offset, gap.nbytes) for gap in around)

    return read, sum(gap.nbytes for gap in around)


def _store_tensors(checkpoint: Checkpoint, objects: Objects, told: Told) -> list[Hole]:
    """Store the spans of tensors, checked against the file's own checksums."""
    checked = CheckedSource(checkpoint.source, checkpoint.checksums, checkpoint.entries)

    def stored(span: Span) -> Hole:
        read = partial(checked.stream, span.offset, span.nbytes)
        return Hole(span.offset, span.nbytes, objects.put(read, span.nbytes))

    holes, size = list[Hole](), checkpoint.source.size
    with _side_by_side(size, objects) as side:
        for hole in side(stored, checkpoint.spans):
            holes.append(hole)
            told(hole.end, size)
    checked.finish()
    return holes


def _digested(checkpoint: Checkpoint, holes: list[Hole], objects: Objects) -> Iterator[TensorEntry]:
    """The entries with their digests; a tensor that fills no hole gets an object of its own."""
    filled = {Span(hole.offset, hole.nbytes): hole.digest for hole in holes}
    for entry in checkpoint.entries:
        tensor = filled.get(entry.span) if entry.span else None
        if tensor is None:
            tensor = objects.put(partial(tensor_bytes, checkpoint.source, entry), entry.nbytes)
        yield TensorEntry(entry.key, entry.dtype, entry.shape, digest=tensor)


@contextmanager
def _side_by_side(nbytes: int, objects: Objects) -> Iterator[Map]:
    """A `map` that works in threads if there are enough bytes for it.

    The first failure is raised, and calls that have not begun by then are dropped.
    """
    if nbytes < _WORTH_THREADS:
        yield map
        return
    # hashlib and the disk work without the GIL. These threads do not wait for syncs.
    threads = Threads(os.cpu_count() or 1)
    with objects.aside():
        try:
            yield threads.map
        finally:
            threads.shutdown(cancel_futures=True)
