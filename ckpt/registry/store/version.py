"""A version as a source of bytes: its container's file, composed of objects.

The file is never written for this. The skeleton is read once; tensors are read on request.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cached_property, partial

from ckpt.errors import AbsentError, IntegrityError
from ckpt.io import digest
from ckpt.io.rights import OWNER, Rights
from ckpt.io.sources import ByteSource, Part
from ckpt.registry.manifest import Hole, Manifest
from ckpt.registry.store.objects import ObjectStore
from ckpt.side_files import Readable
from ckpt.tensors import Span


class VersionSource(ByteSource):
    """The bytes of one version's file; never mapped, since stored bytes are verified when read.

    Args:
        name: The version's name in messages, e.g. ``mnist-cnn:v1``.
        manifest: Its manifest.
        store: Where its objects are.
        rights: Who may read its manifest.
        fetch: Puts an object into the store that is absent, by its digest, its bytes and its
            name in messages; False if it knows no other place.
    """

    def __init__(
        self,
        name: str,
        manifest: Manifest,
        store: ObjectStore,
        rights: Rights = OWNER,
        fetch: Callable[[str, int, str], bool] = lambda name, nbytes, what: False,
    ) -> None:
        self.name = name
        self.manifest = manifest
        self.size = manifest.skeleton.size
        self.parts = tuple(_parts(manifest))
        self._store, self._rights, self._fetch = store, rights, fetch
        holes = manifest.skeleton.holes
        self._holes = (*holes, None)  # None for the bytes after the last one
        self._ends = [hole.end for hole in holes]
        self._filled = [0]  # bytes of holes before each hole
        for hole in holes:
            self._filled.append(self._filled[-1] + hole.nbytes)

    @property
    def rights(self) -> Rights:
        """Those of its manifest, which come from the file that was registered."""
        return self._rights

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """A range of the file in chunks, verified.

        Raises:
            IntegrityError: An object is absent or damaged.
        """
        for part, hole in self.pieces(Span(offset, nbytes)):
            if hole is None:
                yield self.own(part)
            elif part == Span(0, hole.nbytes):
                yield from self.stream_object(hole.digest, hole.nbytes)
            else:
                # A part cannot be verified without the whole.
                yield b"".join(self.stream_object(hole.digest, hole.nbytes))[part.offset : part.end]

    def pieces(self, span: Span) -> Iterator[tuple[Span, Hole | None]]:
        """Cut a span of the file at the holes.

        Yields:
            (the part inside the hole, the hole), or (the part of the skeleton's bytes, None).
        """
        position = span.offset
        index = bisect_right(self._ends, position)
        while position < span.end:
            hole = self._holes[index]
            if hole is not None and hole.offset <= position:
                end = min(hole.end, span.end)
                yield Span(position - hole.offset, end - position), hole
                index += 1
            else:
                end = span.end if hole is None else min(hole.offset, span.end)
                yield Span(position - self._filled[index], end - position), None
            position = end

    def expect_same(self, file: ByteSource) -> None:
        """Make sure that a file holds the bytes of this version.

        Raises:
            IntegrityError: They differ; the message names the tensor.
        """
        if file.size != self.size:
            raise self._differs(f"{file.size:,} bytes, expected {self.size:,}")
        own, position = hashlib.sha256(), 0
        for part, hole in self.pieces(Span(0, self.size)):
            chunks = file.stream(position, part.nbytes)
            position += part.nbytes
            if hole is None:
                for chunk in chunks:
                    own.update(chunk)
            elif digest.of_chunks(chunks) != hole.digest:
                raise self._differs(self._keys.get(hole.digest, f"bytes at {hole.offset:,}"))
        if "sha256:" + own.hexdigest() != self.manifest.skeleton.digest:
            raise self._differs("the bytes around the tensors")

    def _differs(self, what: str) -> IntegrityError:
        return IntegrityError(f"{self.name}: the written file differs from it: {what}")

    def own(self, part: Span) -> bytes:
        """A part of the skeleton's own bytes."""
        return self._skeleton[part.offset : part.end]

    def stream_object(self, name: str, nbytes: int) -> Iterator[bytes]:
        """The verified bytes of a tensor or of the skeleton, inlined or not, by their digest."""
        inline = self.manifest.inline.get(name)
        if inline is not None:
            yield inline
        else:
            what = f"{self.name}: {self._keys.get(name, 'skeleton')}"
            try:
                yield from self._store.stream(name, nbytes, what)
            except AbsentError:  # raised before the first chunk
                if not self._fetch(name, nbytes, what):
                    raise
                yield from self._store.stream(name, nbytes, what)

    def side_files(self) -> tuple[Readable, ...]:
        """What was registered beside the weights."""
        return tuple(
            Readable(
                file.name,
                file.nbytes,
                partial(self.stream_object, file.digest, file.nbytes),
                self.rights,
                file.digest,
            )
            for file in self.manifest.side_files
        )

    @cached_property
    def _keys(self) -> dict[str, str]:
        files = {file.digest: file.name for file in self.manifest.side_files}
        return files | {str(entry.digest): entry.key for entry in self.manifest.entries}

    @cached_property
    def _skeleton(self) -> bytes:
        skeleton = self.manifest.skeleton
        return b"".join(self.stream_object(skeleton.digest, skeleton.nbytes))


def _parts(manifest: Manifest) -> Iterator[Part]:
    position = 0
    for name, nbytes in manifest.files or ((manifest.file_name, manifest.skeleton.size),):
        yield Part(name, position, nbytes)
        position += nbytes
