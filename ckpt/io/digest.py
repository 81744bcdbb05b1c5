"""SHA-256 digests, written ``sha256:hex``, and the CRC-32 of zip archives.

A tensor's digest covers its raw little-endian bytes only; the manifest has its dtype and shape.
"""

import re
import zlib
from collections.abc import Callable, Iterable
from functools import cache

_WORTH_AN_IMPORT = 1 << 16  # bytes; for fewer, importing isal takes longer than it saves
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def of_bytes(data: bytes) -> str:
    """The digest of `data`."""
    import hashlib  # which loads OpenSSL: who reads only headers needs none

    return "sha256:" + hashlib.sha256(data).hexdigest()


def of_chunks(chunks: Iterable[bytes]) -> str:
    """The digest of the concatenated `chunks`."""
    import hashlib

    hasher = hashlib.sha256()
    for chunk in chunks:
        hasher.update(chunk)
    return "sha256:" + hasher.hexdigest()


def is_digest(text: object) -> bool:
    """Whether `text` is a whole, well-formed digest."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def short(digest: str) -> str:
    """The digest with its first 8 hex digits only: ``sha256:3fa9c1d2``."""
    return digest[: len("sha256:") + 8]


def crc32(data: bytes, before: int = 0) -> int:
    """The CRC-32 of `data`, or of it and the bytes in front of it, whose CRC-32 is `before`.

    ISA-L is ten to twenty times faster than zlib: it multiplies where zlib looks up tables.
    """
    if len(data) < _WORTH_AN_IMPORT:
        return zlib.crc32(data, before)
    return _fast_crc32()(data, before)


@cache
def _fast_crc32() -> Callable[[bytes, int], int]:
    try:
        from isal import isal_zlib
    except ImportError:  # there is no package for this processor
        return zlib.crc32
    return isal_zlib.crc32
