"""SHA-256 digests, written ``sha256:hex``.

A tensor's digest covers its raw little-endian bytes only; the manifest has its dtype and shape.
"""

import hashlib
import re
from collections.abc import Iterable

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def of_bytes(data: bytes) -> str:
    """The digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def of_chunks(chunks: Iterable[bytes]) -> str:
    """The digest of the concatenated `chunks`."""
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
