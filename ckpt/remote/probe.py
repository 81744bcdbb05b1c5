"""Try whether a bucket keeps its word: one of several writers wins, and the others know it.

Law: a bucket that accepts a write whose condition does not hold is found out before it is used.
"""

import os

from ckpt.errors import RemoteError
from ckpt.remote.bucket import Bucket

CREATES, REPLACES = "create only if absent", "replace only if unchanged"
_MOST = 1 << 10


def ignored_conditions(bucket: Bucket) -> tuple[str, ...]:
    """The conditions that a bucket ignores; it is left as it was.

    Raises:
        RemoteError: It cannot be reached, refuses writes, or does not give back what was written.
    """
    path = f"ckpt/probe/{os.urandom(8).hex()}"
    try:
        ignored = _ignored(bucket, path)
        return (*ignored, *([f"{REPLACES}, on {bucket.doubt}"] if bucket.doubt else []))
    finally:
        bucket.delete(path)


def _ignored(bucket: Bucket, path: str) -> list[str]:
    ignored = []
    bucket.put_new(path, [b"one"], 3)
    if bucket.put_new(path, [b"two"], 3):
        ignored.append(CREATES)
    _, stale = _content(bucket, path, None)
    if not bucket.replace(path, b"three", stale):
        raise RemoteError(f"{bucket.url}: refuses to replace an object that nobody else wrote")
    if bucket.replace(path, b"four", stale):
        ignored.append(REPLACES)
    else:
        _content(bucket, path, b"three")
    return ignored


def _content(bucket: Bucket, path: str, expected: bytes | None) -> tuple[bytes, str]:
    found = bucket.get(path, most=_MOST)
    if found is None or (expected is not None and found[0] != expected):
        raise RemoteError(f"{bucket.url}: does not give back what was just written")
    return found
