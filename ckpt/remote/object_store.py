"""Amazon S3 and what speaks its protocol, Google Cloud Storage and Azure, by obstore.

obstore repeats requests that failed; so a reply may
be that of a second attempt, after the first one has succeeded.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ckpt.errors import CkptError, RemoteError, UsageError
from ckpt.io.sources import CHUNK
from ckpt.remote.bucket import HELD, Stat
from ckpt.remote.clouds import reason, store_of

PATIENCE = "CKPT_REMOTE_SECONDS"  # the environment variable that says how long to repeat requests
_PATIENCE_SECONDS = 60.0
_RANGE = 16 << 20  # bytes of one request, which is repeated if it fails
_PART = 8 << 20  # bytes; S3 takes 10,000 parts
_AT_ONCE = 8  # parts of one object


class ObjectStoreBucket:
    """A bucket of a cloud, or a part of it.

    Args:
        url: ``s3://bucket/folder``, without credentials.
    """

    doubt = None

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = store_of(url, seconds=patience(), repeats=8)

    def get(self, path: str, *, most: int) -> tuple[bytes, str] | None:
        import obstore

        with self._errors(path):
            try:
                found = obstore.get(self._store, path)
            except FileNotFoundError:
                return None
            if (nbytes := found.meta["size"]) > most:
                raise RemoteError(f"{self.url}/{path}: {nbytes:,} bytes, the limit is {most:,}")
            data = bytearray()
            for chunk in found.stream():
                data += chunk
                if len(data) > nbytes:
                    break
            if len(data) != nbytes:
                raise RemoteError(f"{self.url}/{path}: {len(data):,} bytes, not {nbytes:,}")
            return bytes(data), _tag(found.meta)

    def stream(self, path: str, offset: int, nbytes: int) -> Iterator[bytes] | None:
        first = self._range(path, offset, min(_RANGE, nbytes))
        return None if first is None else self._stream(path, first, offset, nbytes)

    def _stream(self, path: str, first: bytes, offset: int, nbytes: int) -> Iterator[bytes]:
        data: bytes | None = first
        while data:
            yield from (data[begin : begin + CHUNK] for begin in range(0, len(data), CHUNK))
            offset, nbytes = offset + len(data), nbytes - len(data)
            data = self._range(path, offset, min(_RANGE, nbytes)) if nbytes > 0 else None

    def _range(self, path: str, offset: int, nbytes: int) -> bytes | None:
        import obstore

        with self._errors(path):
            try:
                return bytes(obstore.get_range(self._store, path, start=offset, length=nbytes))
            except FileNotFoundError:
                return None

    def head(self, path: str) -> Stat | None:
        import obstore

        with self._errors(path):
            try:
                return _stat(obstore.head(self._store, path))
            except FileNotFoundError:
                return None

    def put_new(self, path: str, chunks: Iterable[bytes], nbytes: int) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        if nbytes > HELD:  # obstore sends what is created only if absent in one piece
            if self.head(path) is not None:
                return False
            self.overwrite(path, chunks, nbytes)
            return True
        data = b"".join(chunks)
        with self._errors(path):
            try:
                obstore.put(self._store, path, data, mode="create", use_multipart=False)
            except AlreadyExistsError as error:
                if self.head(path) is None:  # some stores say so while another write is going on
                    raise RemoteError(f"{self.url}/{path}: another process writes it") from error
                return False
        return True

    def replace(self, path: str, data: bytes, tag: str) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        e_tag, _, version = tag.partition("\n")
        words = {"e_tag": e_tag, "version": version}
        known: Any = {name: value for name, value in words.items() if value}
        with self._errors(path):
            try:
                obstore.put(self._store, path, data, mode=known, use_multipart=False)
            except (PreconditionError, AlreadyExistsError, FileNotFoundError):
                return False
        return True

    def overwrite(self, path: str, chunks: Iterable[bytes], nbytes: int) -> None:
        import obstore

        with self._errors(path):
            if nbytes <= HELD:
                obstore.put(self._store, path, b"".join(chunks), use_multipart=False)
            else:
                parts = _joined(chunks, _PART)
                part = max(_PART, -(-nbytes // 9_000))
                obstore.put(
                    self._store, path, parts, chunk_size=part, max_concurrency=_AT_ONCE
                )  # aborted if `parts` raises

    def list(self, prefix: str) -> Iterator[Stat]:
        import obstore

        with self._errors(prefix):
            for found in obstore.list(self._store, prefix=f"{prefix}/"):
                yield from map(_stat, found)

    def delete(self, path: str) -> None:
        import obstore

        # S3 says nothing of what it does not have; Azure and Google do.
        with self._errors(path), suppress(FileNotFoundError):
            obstore.delete(self._store, path)

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except CkptError:
            raise
        except (BaseError, OSError) as error:
            raise RemoteError(f"{self.url}/{path}: {reason(error)}", hint=_hint(error)) from error


def patience() -> float:
    """How long failed requests are repeated, in seconds."""
    try:
        return max(0.1, float(os.environ.get(PATIENCE, _PATIENCE_SECONDS)))
    except ValueError as error:
        raise UsageError(f"{PATIENCE} is not a number of seconds") from error


def _joined(chunks: Iterable[bytes], nbytes: int) -> Iterator[bytes]:
    """The same bytes in larger pieces: each crosses from Python to obstore once."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) >= nbytes:
            yield bytes(held)
            held.clear()
    yield bytes(held)


def _stat(found: Any) -> Stat:
    return Stat(found["path"], found["size"], found["last_modified"].timestamp())


def _tag(found: Any) -> str:
    return f"{found['e_tag'] or ''}\n{found['version'] or ''}"


def _hint(error: Exception) -> str | None:
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        return "check the credentials in the environment, e.g. AWS_ACCESS_KEY_ID"
    return None
