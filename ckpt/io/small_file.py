"""Read a small file that somebody else may have written.

Law: it is a regular file of a bounded size, or an error, without waiting for a pipe or a device.
"""

from pathlib import Path
from typing import Any

from ckpt.errors import FormatError
from ckpt.io.sources import FileSource

MOST_BYTES = 1 << 24  # a map of 100,000 keys takes 10 MB
# tomllib needs the square of the number of parts of a dotted key, in time and in memory: 1 s here.
_MOST_DOTS_SQUARED = 5 * 10**7


def read_small(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file.

    Raises:
        MissingFileError: There is no such file.
        FormatError: It is larger than `most` bytes, or not a regular file.
    """
    with FileSource(path) as source:
        if source.size > most:
            raise FormatError(f"{path}: {source.size:,} bytes, the limit is {most:,}")
        return source.read(0, source.size)


def parse_toml(text: str) -> dict[str, Any]:
    """A TOML document.

    Raises:
        ValueError: It is not valid, or its keys have so many parts that reading it takes minutes.
    """
    if sum(line.count(".") ** 2 for line in text.split("\n")) > _MOST_DOTS_SQUARED:
        raise ValueError("too many dots in a line")
    import tomllib

    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
