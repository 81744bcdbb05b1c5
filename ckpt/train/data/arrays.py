"""The arrays of an ``.npz`` file, read without pickle and within bounds.

Law: memory is bounded by the size of the file: an array is read only if its header, its size in
the archive and its ratio to the file agree. numpy reads headers and values.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from ckpt.errors import DatasetError

Array = np.ndarray[Any, Any]

# DEFLATE reaches 1,032 to 1; images reach 100 to 1 only if they are blank.
_RATIO_LIMIT = 100
_FREE_BYTES = 64 << 20
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


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


def read_array(
    archive: zipfile.ZipFile, key: str, *, kinds: str, expected: str, hint: str | None = None
) -> Array:
    """Read ``KEY.npy`` of an archive that was opened by its path.

    Args:
        archive: With this array.
        key: Its name.
        kinds: The allowed values of numpy's `dtype.kind`, or a whole `dtype.str`.
        expected: The same in words.
        hint: For the error about another type.

    Raises:
        DatasetError: It is damaged, of another type or larger than the file can hold.
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
            shape, dtype = _read_header(stream)
            promised = stream.tell() + prod(shape) * dtype.itemsize
        if dtype.kind not in kinds and dtype.str != kinds:
            found = "Python objects" if dtype.hasobject else dtype.name
            raise DatasetError(f"{where} holds {found}, expected {expected}", hint=hint)
        if promised != info.file_size:
            raise ValueError(
                f"header promises {promised:,} bytes, the file holds {info.file_size:,}"
            )
        with archive.open(info) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False), order="C")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"NPY version {version[0]}.{version[1]}, expected 1.0 or 2.0")
    shape, _, dtype = _HEADERS[version](stream)
    return shape, dtype
