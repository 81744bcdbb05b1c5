"""The bytes of an object, which are hashed as they are read and compared with its name."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from ckpt.errors import AbsentError, DiskError, IntegrityError
from ckpt.io import digest
from ckpt.io.files import disk_errors, open_plain
from ckpt.io.sources import CHUNK

REPAIR = "ckpt verify --repair FROM  restores it from a file, another registry or a remote"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def verified(path: Path, name: str, what: str) -> Iterator[bytes]:
    """The bytes of an object in chunks.

    Args:
        path: Its file.
        name: Its digest.
        what: Its name in messages.

    Raises:
        IntegrityError: It is absent or damaged; raised at the latest after the last chunk.
    """
    try:
        fd = open_plain(path)
    except FileNotFoundError as error:
        raise AbsentError(
            f"object {digest.short(name)} of {what} is missing", hint=REPAIR
        ) from error
    except (IntegrityError, IsADirectoryError, NotADirectoryError) as error:
        raise IntegrityError(
            f"object {digest.short(name)} of {what} is not a regular file: {path}", hint=REPAIR
        ) from error
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
    try:
        hasher, nbytes, head = hashlib.sha256(), 0, b""
        while chunk := _read(fd, path):
            head = head or chunk[: len(_LFS_POINTER)]
            hasher.update(chunk)
            nbytes += len(chunk)
            yield chunk
    finally:
        with disk_errors(path):
            os.close(fd)
    if "sha256:" + hasher.hexdigest() != name:
        if head == _LFS_POINTER:
            raise IntegrityError(
                f"object {digest.short(name)} of {what} is a Git-LFS pointer, not its bytes",
                hint=f"git lfs pull  fetches all of them;\n{REPAIR}",
            )
        raise IntegrityError(
            f"object {digest.short(name)} of {what} is damaged: {nbytes:,} bytes, digest differs",
            hint=REPAIR,
        )


def _read(fd: int, path: Path) -> bytes:
    with disk_errors(path):
        return os.read(fd, CHUNK)
