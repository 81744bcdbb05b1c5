"""Arrays in an archive of numpy's: found, read whole, or left on disk to be read by rows.

Law: nothing is unpickled, and memory is bounded by the size of the file: an array is read only if
its header, its size in the archive and its ratio to the file agree. numpy reads headers and values.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import torch
from torch import Tensor

from ckpt.errors import DatasetError
from ckpt.train.data.on_disk import OnDisk, Stamp, expect_same, stamp

# DEFLATE reaches 1,032 to 1; images reach 100 to 1 only if they are blank.
_RATIO_LIMIT = 100
_FREE_BYTES = 64 << 20
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True, slots=True)
class Array:
    """An array in an archive, and the bytes of its header."""

    key: str
    info: ZipInfo
    shape: tuple[int, ...]
    is_fortran: bool
    header_bytes: int

    @property
    def is_in_rows(self) -> bool:
        """Whether the file holds its values one row after another."""
        return self.info.compress_type == ZIP_STORED and not self.is_fortran


def find_array(
    archive: ZipFile, key: str, kinds: str, expected: str, hint: str | None = None
) -> Array:
    """The array ``KEY.npy``, unless it is damaged or larger than the file can hold.

    `kinds` has the allowed values of numpy's `dtype.kind`, or is a whole `dtype.str`.
    """
    where, info = f"{archive.filename}: {key}", archive.getinfo(f"{key}.npy")
    with parsing(where):
        packed = min(info.compress_size, Path(str(archive.filename)).stat().st_size)
        if info.file_size > max(_FREE_BYTES, _RATIO_LIMIT * packed):
            raise DatasetError(
                f"{where}: {packed:,} bytes would unpack to {info.file_size:,}",
                hint="numpy.savez  writes uncompressed arrays",
            )
        with archive.open(info) as stream:
            shape, is_fortran, dtype = _read_header(stream)
            header_bytes = stream.tell()
        if dtype.kind not in kinds and dtype.str != kinds:
            found = "Python objects" if dtype.hasobject else dtype.name
            raise DatasetError(f"{where} holds {found}, expected {expected}", hint=hint)
        promised = header_bytes + prod(shape) * dtype.itemsize
        if promised != info.file_size:
            raise ValueError(
                f"header promises {promised:,} bytes, the file holds {info.file_size:,}"
            )
    return Array(key, info, shape, is_fortran, header_bytes)


def read_array(archive: ZipFile, found: Array) -> np.ndarray[Any, Any]:
    """The values, row by row."""
    with parsing(f"{archive.filename}: {found.key}"), archive.open(found.info) as stream:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False), order="C")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"NPY version {version[0]}.{version[1]}, expected 1.0 or 2.0")
    shape, is_fortran, dtype = _HEADERS[version](stream)
    return shape, is_fortran, dtype


def rows_on_disk(archive: ZipFile, found: Array) -> OnDisk:
    """The images of an array that its file holds row by row; checked as they are in memory."""
    where = f"{archive.filename}: {found.key}"
    if not found.is_in_rows:
        raise DatasetError(
            f"{where}: compressed or in Fortran order, expected rows that --loader disk can read",
            hint="numpy.savez  writes uncompressed arrays, numpy.ascontiguousarray rows",
        )
    with parsing(where):
        path = Path(str(archive.filename))
        before = stamp(path.stat())
        _expect_checksum(archive, found.info)
        height, width, *channels = found.shape[1:]
        rows = ArrayRows(path, _begin(path, found), (height, width, *channels), before)
    size = (channels[0] if channels else 1, height, width)
    return OnDisk(rows, torch.arange(found.shape[0]), size)


def _expect_checksum(archive: ZipFile, info: ZipInfo) -> None:
    with archive.open(info) as stream:  # compares the CRC-32 at the end
        while stream.read(1 << 20):
            pass


def _begin(path: Path, found: Array) -> int:
    """Where the values begin. Source: APPNOTE.TXT, 4.3.7, Local file header."""
    with path.open("rb") as file:
        file.seek(found.info.header_offset)
        name, extra = struct.unpack("<26x2H", file.read(30))
    return found.info.header_offset + 30 + int(name) + int(extra) + found.header_bytes


@dataclass(frozen=True, slots=True)
class ArrayRows:
    """Images in the rows of an array in a file.

    Attributes:
        begin: Offset of the first one, in bytes.
        shape: Of one, ``(h, w)`` or ``(h, w, c)``.
        before: The file's stamp when it was checked.
    """

    path: Path
    begin: int
    shape: tuple[int, ...]
    before: Stamp

    def read(self, row: int) -> Tensor:
        """Read an image; see `on_disk.Source`."""
        count = prod(self.shape)
        with parsing(str(self.path)), self.path.open("rb", buffering=0) as file:
            expect_same(self.path, os.fstat(file.fileno()), self.before)
            content = bytearray(os.pread(file.fileno(), count, self.begin + row * count))
            image = torch.frombuffer(content, dtype=torch.uint8).view(self.shape)
        return image[None] if image.ndim == 2 else image.permute(2, 0, 1)


@contextmanager
def parsing(where: str) -> Iterator[None]:
    """Turn any exception of a parser into a `DatasetError` about `where`."""
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:  # foreign bytes, in parsers of zipfile's and numpy's
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        hint = "write or fetch the file again"
        raise DatasetError(f"{where}: damaged: {reason}", hint=hint) from error
