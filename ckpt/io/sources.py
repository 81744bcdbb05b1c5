"""Sources of bytes made of others: files joined, windows on a part, and derived regions.

A checkpoint of several files is read as one: its files joined in a fixed order. Law: the
range of a part in the joined source holds that file's bytes.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from ckpt.io.files import ByteSource, FileSource, Part, Seen


class JoinedSource(AbstractContextManager["JoinedSource"]):
    """Several files as one; a `ckpt.io.files.ByteSource`.

    Args:
        name: What to call them together, e.g. the path of their folder.
        files: Base name and path of each, in the order in which they are joined.
        first: What the first of them says, where it was read to know the others.

    Raises:
        RefError: One of them is not there.
        FormatError: One of them is no regular file.
    """

    def __init__(self, name: str, files: Mapping[str, Path], first: object = None) -> None:
        self.name, self.first = name, first
        self._stack = ExitStack()
        self._files: list[FileSource] = []
        parts, position = [], 0
        with ExitStack() as opening:
            for base_name, path in files.items():
                file = opening.enter_context(FileSource(path))
                self._files.append(file)
                parts.append(Part(base_name, position, file.size))
                position += file.size
            self._stack = opening.pop_all()
        self.parts: tuple[Part, ...] = tuple(parts)
        self.size = position
        self._begins = [part.offset for part in parts]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def expect_unchanged(self) -> None:
        """See `FileSource.expect_unchanged`."""
        for file in self._files:
            file.expect_unchanged()

    def read(self, offset: int, nbytes: int) -> bytes:
        """See `ByteSource.read`."""
        return b"".join(self.stream(offset, nbytes))

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """See `ByteSource.stream`."""
        for file, begin, length in self._cut(offset, nbytes):
            yield from file.stream(begin, length)

    def copy(self, offset: int, nbytes: int, out: BinaryIO, seen: Seen | None = None) -> None:
        """See `ByteSource.copy`."""
        for file, begin, length in self._cut(offset, nbytes):
            file.copy(begin, length, out, seen)

    def mapped(self, offset: int, nbytes: int) -> memoryview | None:
        """See `ByteSource.mapped`; None of a range that no one file holds."""
        cut = list(self._cut(offset, nbytes))
        if len(cut) != 1:
            return None
        file, begin, length = cut[0]
        return file.mapped(begin, length)

    def _cut(self, offset: int, nbytes: int) -> Iterator[tuple[FileSource, int, int]]:
        """The file, the offset in it and the bytes of each part of a range."""
        end = offset + nbytes
        index = bisect_right(self._begins, offset) - 1
        while offset < end:
            part = self.parts[index]
            stop = min(end, part.offset + part.nbytes)
            if stop > offset:
                yield self._files[index], offset - part.offset, stop - offset
            offset = max(offset, stop)
            index += 1


class Window:
    """A range of a source, as a source of its own; a `ckpt.io.files.ByteSource`.

    Args:
        source: The whole.
        part: The range, and what to call it.
    """

    def __init__(self, source: ByteSource, part: Part) -> None:
        self.name = f"{source.name}: {part.name}"
        self.size = part.nbytes
        self.parts = (Part(part.name, 0, part.nbytes),)
        self._source, self._offset = source, part.offset

    def read(self, offset: int, nbytes: int) -> bytes:
        """See `ByteSource.read`."""
        return self._source.read(self._offset + offset, nbytes)

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """See `ByteSource.stream`."""
        return self._source.stream(self._offset + offset, nbytes)

    def copy(self, offset: int, nbytes: int, out: BinaryIO, seen: Seen | None = None) -> None:
        """See `ByteSource.copy`."""
        self._source.copy(self._offset + offset, nbytes, out, seen)

    def mapped(self, offset: int, nbytes: int) -> memoryview | None:
        """See `ByteSource.mapped`."""
        return self._source.mapped(self._offset + offset, nbytes)


class Region(Protocol):
    """Bytes that no file holds as they are: an inflated member, a tensor made of chunks."""

    @property
    def nbytes(self) -> int:
        """How many there are."""

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """A range of them in chunks, worked out as they are asked for."""


class ExtendedSource:
    """A source, and regions that follow its end; a `ckpt.io.files.ByteSource`.

    `size` and `parts` are those of the source: what is copied, hashed or put into a skeleton
    is never a region, while an entry's bytes may well be one.
    """

    def __init__(self, source: ByteSource) -> None:
        self.name, self.parts, self.size = source.name, source.parts, source.size
        self._source = source
        self._regions: list[Region] = []
        self._begins: list[int] = []
        self._own = self._end = extent_of(source)

    @property
    def extent(self) -> int:
        """Where the last region ends."""
        return self._end

    def add(self, region: Region) -> int:
        """Let a region follow; the answer is its offset."""
        begin = self._end
        self._regions.append(region)
        self._begins.append(begin)
        self._end += region.nbytes
        return begin

    def read(self, offset: int, nbytes: int) -> bytes:
        """See `ByteSource.read`."""
        return b"".join(self.stream(offset, nbytes))

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """See `ByteSource.stream`; a range lies in the source or in one region."""
        if offset < self._own:
            return self._source.stream(offset, nbytes)
        if not nbytes:
            return iter(())
        index = bisect_right(self._begins, offset) - 1
        return self._regions[index].stream(offset - self._begins[index], nbytes)

    def copy(self, offset: int, nbytes: int, out: BinaryIO, seen: Seen | None = None) -> None:
        """See `ByteSource.copy`."""
        if offset < self._own:
            self._source.copy(offset, nbytes, out, seen)
            return
        for chunk in self.stream(offset, nbytes):
            if seen is not None:
                seen(chunk)
            out.write(chunk)

    def mapped(self, offset: int, nbytes: int) -> memoryview | None:
        """See `ByteSource.mapped`; None of a region."""
        return self._source.mapped(offset, nbytes) if offset < self._own else None


def extent_of(source: ByteSource) -> int:
    """Where what can be read of a source ends: its size, or that of its last region."""
    extent: int = getattr(source, "extent", source.size)
    return extent
