"""Sources made of others: several files joined, a part of one, and regions worked out on demand.

A checkpoint of several files is read as one: its files joined in a fixed order. Law: the
range of a part in the joined source holds that file's bytes.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import reduce
from operator import and_
from pathlib import Path
from typing import BinaryIO, Protocol

from ckpt.io.rights import Rights
from ckpt.io.sources import ByteSource, FileSource, OpenSource, Part, Seen


class JoinedSource(OpenSource):
    """Several files as one.

    Args:
        name: How messages call them together, e.g. the path of their folder.
        files: Base name and path of each file, in order; or the open file, closed with them.
        first: The content of the first file, if it was parsed to find the others.

    Raises:
        RefError: A file does not exist.
        FormatError: A file is not a regular one.
    """

    def __init__(
        self, name: str, files: Mapping[str, Path | OpenSource], first: object = None
    ) -> None:
        self.name, self.first = name, first
        self._files: list[OpenSource] = []
        parts, position = [], 0
        with ExitStack() as opening:
            for base_name, path in files.items():
                file = opening.enter_context(FileSource(path) if isinstance(path, Path) else path)
                self._files.append(file)
                parts.append(Part(base_name, position, file.size))
                position += file.size
            self._opened = opening.pop_all()
        self.parts = tuple(parts)
        self.size = position
        self._begins = [part.offset for part in parts]

    def close(self) -> None:
        self._opened.close()

    @property
    def rights(self) -> Rights:
        return reduce(and_, (file.rights for file in self._files))

    def expect_unchanged(self) -> None:
        for file in self._files:
            file.expect_unchanged()

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        for file, begin, length in self._pieces(offset, nbytes):
            yield from file.stream(begin, length)

    def copy(self, offset: int, nbytes: int, out: BinaryIO, seen: Seen | None = None) -> None:
        for file, begin, length in self._pieces(offset, nbytes):
            file.copy(begin, length, out, seen)

    def mapped(self, offset: int, nbytes: int) -> memoryview | None:
        """None if the range lies in several files."""
        pieces = list(self._pieces(offset, nbytes))
        if len(pieces) != 1:
            return None
        file, begin, length = pieces[0]
        return file.mapped(begin, length)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        wanted: dict[OpenSource, list[tuple[int, int]]] = {}
        for begin, end in ranges:
            for file, at, nbytes in self._pieces(begin, end - begin):
                wanted.setdefault(file, []).append((at, at + nbytes))
        for file, own in wanted.items():
            file.prefetch(own)

    def _pieces(self, offset: int, nbytes: int) -> Iterator[tuple[OpenSource, int, int]]:
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


class PartSource(ByteSource):
    """A range of a source, as a source of its own.

    Args:
        source: The whole.
        part: The range, and its name for messages.
    """

    def __init__(self, source: ByteSource, part: Part) -> None:
        self.name = f"{source.name}: {part.name}"
        self.size = part.nbytes
        self.parts = (Part(part.name, 0, part.nbytes),)
        self._source, self._offset = source, part.offset

    @property
    def rights(self) -> Rights:
        return self._source.rights

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        return self._source.stream(self._offset + offset, nbytes)

    def copy(self, offset: int, nbytes: int, out: BinaryIO, seen: Seen | None = None) -> None:
        self._source.copy(self._offset + offset, nbytes, out, seen)

    def mapped(self, offset: int, nbytes: int) -> memoryview | None:
        return self._source.mapped(self._offset + offset, nbytes)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._source.prefetch((a + self._offset, b + self._offset) for a, b in ranges)


class Region(Protocol):
    """Bytes that no file holds as they are: an inflated member, a tensor made of chunks."""

    @property
    def nbytes(self) -> int:
        """Its length."""

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """A range of it in chunks, worked out as they are asked for."""


class ExtendedSource(ByteSource):
    """A source, and regions that follow its end.

    `size` and `parts` are those of the source: regions are never copied, hashed or put into a
    skeleton, while an entry's bytes may lie in one.
    """

    def __init__(self, source: ByteSource) -> None:
        self.name, self.parts, self.size = source.name, source.parts, source.size
        self._source = source
        self._regions: list[Region] = []
        self._begins: list[int] = []
        self._own = self._end = source.extent

    @property
    def rights(self) -> Rights:
        return self._source.rights

    @property
    def extent(self) -> int:
        return self._end

    def add(self, region: Region) -> int:
        """Append a region and return its offset."""
        begin = self._end
        self._regions.append(region)
        self._begins.append(begin)
        self._end += region.nbytes
        return begin

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """The range must lie in the source or in one region."""
        if offset < self._own:
            return self._source.stream(offset, nbytes)
        if not nbytes:
            return iter(())
        index = bisect_right(self._begins, offset) - 1
        return self._regions[index].stream(offset - self._begins[index], nbytes)

    def copy(self, offset: int, nbytes: int, out: BinaryIO, seen: Seen | None = None) -> None:
        if offset < self._own:
            self._source.copy(offset, nbytes, out, seen)
        else:
            super().copy(offset, nbytes, out, seen)

    def mapped(self, offset: int, nbytes: int) -> memoryview | None:
        """None in a region."""
        return self._source.mapped(offset, nbytes) if offset < self._own else None
