"""The arrays of an ``.npz`` file, read without pickle and within bounds.

Law: memory is bounded by the size of the file: an array is read only if its header, its size in
the archive and its ratio to the file agree. numpy reads headers and values.
"""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from ckpt.errors import DatasetError

Array = np.ndarray[Any, Any]

# DEFLATE reaches 1,032 to 1; images reach 100 to 1 only if they are blank.
_RATIO_LIMIT = 100
_FREE_BYTES = 64 << 20
_HEADERS: dict[tuple[int, int], Callable[[Any], tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """An archive of arrays; use `open_arrays`."""

    path: Path
    _archive: zipfile.ZipFile

    def keys(self) -> list[str]:
        """Names of the arrays, in the order of the archive."""
        names = self._archive.namelist()
        return [name.removesuffix(".npy") for name in names if name.endswith(".npy")]

    def read(self, key: str, *, kinds: str, expected: str, hint: str | None = None) -> Array:
        """Read one array.

        Args:
            key: One of `keys`.
            kinds: The allowed values of numpy's `dtype.kind`, or a whole `dtype.str`.
            expected: The same in words.
            hint: For the error about another type.

        Raises:
            DatasetError: It is damaged, of another type or larger than the file can hold.
        """
        info = self._archive.getinfo(f"{key}.npy")
        with self._reading(key):
            self._expect_proportion(key, info)
            with self._archive.open(info) as stream:
                shape, dtype = _read_header(stream)
                promised = stream.tell() + prod(shape) * dtype.itemsize
            if dtype.kind not in kinds and dtype.str != kinds:
                found = "Python objects" if dtype.hasobject else dtype.name
                raise DatasetError(
                    f"{self.path}: {key} holds {found}, expected {expected}", hint=hint
                )
            if promised != info.file_size:
                raise ValueError(
                    f"header promises {promised:,} bytes, the file holds {info.file_size:,}"
                )
            with self._archive.open(info) as stream:
                array: Array = np.lib.format.read_array(stream, allow_pickle=False)
                return np.asarray(array, order="C")

    def _expect_proportion(self, key: str, info: zipfile.ZipInfo) -> None:
        packed = min(info.compress_size, self.path.stat().st_size)
        if info.file_size > max(_FREE_BYTES, _RATIO_LIMIT * packed):
            raise DatasetError(
                f"{self.path}: {key}: {packed:,} bytes would unpack to {info.file_size:,}",
                hint="numpy.savez  writes uncompressed arrays",
            )

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except DatasetError:
            raise
        except Exception as error:  # foreign bytes, in parsers of zipfile's and numpy's
            raise _damaged(f"{self.path}: {key}", error) from error


@contextmanager
def open_arrays(path: Path) -> Iterator[ArrayFile]:
    """Open the arrays of a file.

    Raises:
        DatasetError: It is not a zip archive.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # foreign bytes, in a parser of zipfile's
        raise _damaged(str(path), error) from error
    with archive:
        yield ArrayFile(path, archive)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"NPY version {version[0]}.{version[1]}, expected 1.0 or 2.0")
    shape, _, dtype = _HEADERS[version](stream)
    return shape, dtype


def _damaged(where: str, error: Exception) -> DatasetError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return DatasetError(f"{where}: damaged: {reason}", hint="write or fetch the file again")
