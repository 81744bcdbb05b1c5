"""Downloads: gzip archives with pinned size and SHA-256.

Law: a file gets its name only if its bytes have the pinned digest, and a folder only when all
its files are there. An interruption leaves ``.part`` files, which the next attempt resumes by
HTTP's Range (RFC 9110, 14); it never reads more bytes than the pinned size.
"""

import contextlib
import hashlib
import http.client
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from ckpt.train.watch.events import Callback, Loading, Note

SECONDS = 15.0  # until an answer, or its next byte
_ATTEMPTS = 5  # at one mirror that keeps breaking off
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """A gzip file to download, by its name on every mirror; sizes in bytes."""

    name: str
    nbytes: int
    sha256: str
    unpacked: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"{self.name}: not a SHA-256: {self.sha256!r:.80}")

    def unpack(self, path: Path) -> bytes:
        """The content of the archive at `path`.

        Raises:
            NotPublishedError: The file has another size or digest.
        """
        with path.open("rb") as file:
            packed = file.read(self.nbytes + 1)
        if len(packed) != self.nbytes:
            size = path.stat().st_size
            raise NotPublishedError(f"{size:,} bytes, expected {self.nbytes:,}")
        expect_digest(packed, self.sha256)
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed, self.unpacked)


class NotPublishedError(Exception):
    """A file is not the published archive; has what was found against what was expected."""


def expect_digest(content: bytes, sha256: str) -> None:
    """Refuse content with another SHA-256.

    Raises:
        NotPublishedError: With the beginnings of both.
    """
    if (digest := hashlib.sha256(content).hexdigest()) != sha256:
        raise NotPublishedError(f"sha256 {digest[:8]}…, expected {sha256[:8]}…")


class DownloadError(Exception):
    """No mirror has an archive, with a reason for each; or why one of them has not."""


def fetch(
    archives: Iterable[PublishedFile], mirrors: Sequence[str], folder: Path, *, callback: Callback
) -> None:
    """Download archives into ``raw`` of `folder`, which appears when they are complete.

    Processes that want the same folder at the same time download it once.

    Mirrors are beginnings of URLs, tried in order; `callback` gets `Note` and `Loading`.

    Raises:
        DownloadError: No mirror has one of them.
        OSError: The folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.part")
    raw = unfinished / "raw"
    with _locked(folder.with_name(f".{folder.name}.lock"), callback):
        if all((folder / "raw" / archive.name).is_file() for archive in archives):
            return  # another process was faster
        raw.mkdir(parents=True, exist_ok=True)
        try:
            for archive in archives:
                _fetch(archive, mirrors, raw, callback)
            unfinished.rename(folder)
        finally:
            with contextlib.suppress(OSError):  # they hold a part to resume, or were renamed
                raw.rmdir()
                unfinished.rmdir()


def _locked(path: Path, callback: Callback) -> contextlib.AbstractContextManager[object]:
    """A lock, held; other processes may download the same."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        callback(Note("another process is downloading it; waiting for that"))
        return lock.acquire()


def _fetch(
    archive: PublishedFile, mirrors: Sequence[str], folder: Path, callback: Callback
) -> None:
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    if path.is_file():
        return
    tried = []
    for mirror in mirrors:
        try:
            _complete(part, mirror + archive.name, archive, callback)
        except (OSError, ValueError, http.client.HTTPException, DownloadError) as error:
            tried.append(f"{urlsplit(mirror).hostname}: {_reason(error)}")
        else:
            part.rename(path)
            return
    raise DownloadError(f"tried {', '.join(tried)}")


def _complete(part: Path, url: str, archive: PublishedFile, callback: Callback) -> None:
    """Append to `part` until it is the archive."""
    for _ in range(_ATTEMPTS):
        begun = _size(part)
        if begun < archive.nbytes:
            _receive(part, url, archive, callback)
            if _size(part) == begun:
                break
        if _size(part) < archive.nbytes:
            continue
        with part.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == archive.sha256:
                return
        part.unlink()
        if not begun:  # else the wrong bytes may come from another mirror: try again from 0
            raise DownloadError("sends another file")
    raise DownloadError(f"breaks off after {_size(part):,} of {archive.nbytes:,} bytes")


def _receive(part: Path, url: str, archive: PublishedFile, callback: Callback) -> None:
    """Request the missing bytes, and keep those that arrive."""
    begun = _size(part)
    asked = {"Range": f"bytes={begun}-"} if begun else {}
    try:
        answer = urlopen(Request(url, headers={"User-Agent": "ckpt", **asked}), timeout=SECONDS)
    except HTTPError as error:
        error.close()
        raise
    with answer:
        at = _first_byte(answer, begun, archive)
        with part.open("r+b" if at else "wb") as out:
            out.seek(at)
            while at < archive.nbytes and (chunk := _chunk(answer, archive.nbytes - at)):
                out.write(chunk)
                at += len(chunk)
                callback(Loading(archive.name, at, archive.nbytes, "B"))
            out.flush()
            os.fsync(out.fileno())


def _first_byte(answer: http.client.HTTPResponse, begun: int, archive: PublishedFile) -> int:
    """Where the body begins: as requested, or at 0 if the server does not support ranges."""
    if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        given = answer.headers.get("Content-Range", "")
        if not given.startswith(f"bytes {begun}-"):
            raise DownloadError(
                f"sends {given or 'some range'!r:.60}, expected byte {begun:,} and after"
            )
        return begun
    length = answer.headers.get("Content-Length", str(archive.nbytes))
    if length != str(archive.nbytes):
        raise DownloadError(f"sends {length:.20} bytes, expected {archive.nbytes:,}")
    return 0


def _chunk(answer: http.client.HTTPResponse, nbytes: int) -> bytes:
    """The next bytes; none if the connection breaks off."""
    try:
        return answer.read1(min(_CHUNK, nbytes))
    except (OSError, http.client.HTTPException):
        return b""


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _reason(error: Exception) -> str:
    """The reason for an error in a few words, without urllib's brackets."""
    cause = error.reason if type(error) is URLError else error
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)
