"""Downloads: gzip archives whose size and SHA-256 are known before they are fetched.

Law: a file gets its name only if its bytes have the pinned digest, and a folder only when all
its files are there. What an interruption leaves are ``.part`` files, which the next attempt
goes on with, by HTTP's Range (RFC 9110, 14); never are more bytes taken than are pinned.
"""

import contextlib
import hashlib
import http.client
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

# Told of what takes a while: what it is, how much is done, of how much, and the unit.
Loading = Callable[[str, int, int, str], None]

SECONDS = 15.0  # without an answer, or without a byte of it
_ATTEMPTS = 5  # at one mirror that breaks off
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A gzip file that is to be fetched.

    Attributes:
        name: Of the file, at every mirror.
        nbytes: Its size.
        sha256: 64 hex digits; there is no archive without.
        unpacked: Size of what it holds.
    """

    name: str
    nbytes: int
    sha256: str
    unpacked: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"{self.name}: no SHA-256, and nothing is fetched without one")

    def unpack(self, path: Path) -> bytes:
        """What the archive at `path` holds.

        Raises:
            NotPublishedError: It is another file.
        """
        with path.open("rb") as file:
            packed = file.read(self.nbytes + 1)
        if len(packed) != self.nbytes:
            size = path.stat().st_size
            raise NotPublishedError(f"{size:,} bytes, expected {self.nbytes:,}")
        if (digest := hashlib.sha256(packed).hexdigest()) != self.sha256:
            raise NotPublishedError(f"sha256 {digest[:8]}…, expected {self.sha256[:8]}…")
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed, self.unpacked)


class NotPublishedError(Exception):
    """A file is not the archive it should be; says what was found against what was expected."""


class DownloadError(Exception):
    """No mirror gives an archive; says of each why."""


def fetch(
    archives: Iterable[Archive],
    mirrors: Sequence[str],
    folder: Path,
    *,
    note: Callable[[str], None],
    loading: Loading,
) -> None:
    """Have all archives in ``raw`` of `folder`, which appears when they are whole.

    Processes that want the same folder at the same time fetch it once.

    Args:
        archives: What to fetch.
        mirrors: Beginnings of URLs; each is tried where the one before does not serve.
        folder: Made here; the folders above it too.
        note: Takes one plain line.
        loading: Told how it goes, in bytes.

    Raises:
        DownloadError: No mirror gives one of them.
        OSError: The folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.part")
    raw = unfinished / "raw"
    with _alone(folder.with_name(f".{folder.name}.lock"), note):
        if all((folder / "raw" / archive.name).is_file() for archive in archives):
            return  # another process was faster
        raw.mkdir(parents=True, exist_ok=True)
        try:
            for archive in archives:
                _fetch(archive, mirrors, raw, loading)
            unfinished.rename(folder)
        finally:
            with contextlib.suppress(OSError):  # there is something to go on with, or it is renamed
                raw.rmdir()
                unfinished.rmdir()


@contextlib.contextmanager
def _alone(path: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Wait for other processes that fetch the same."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note("another process is fetching it; waiting for that")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(archive: Archive, mirrors: Sequence[str], folder: Path, loading: Loading) -> None:
    path = folder / archive.name
    if path.is_file():
        return
    part = folder / f"{archive.name}.part"
    tried = []
    for mirror in mirrors:
        try:
            _complete(part, mirror + archive.name, archive, loading)
        except (OSError, ValueError, http.client.HTTPException, _UnfitError) as error:
            tried.append(f"{urlsplit(mirror).hostname}: {_reason(error)}")
        else:
            part.rename(path)
            return
    raise DownloadError(f"tried {', '.join(tried)}")


class _UnfitError(Exception):
    """A mirror does not give what is published."""


def _complete(part: Path, url: str, archive: Archive, loading: Loading) -> None:
    """Go on with `part` until it is the archive."""
    for _ in range(_ATTEMPTS):
        begun = _size(part)
        if begun < archive.nbytes:
            _receive(part, url, archive, loading)
            if _size(part) == begun:
                break
        if _size(part) < archive.nbytes:
            continue
        if _sha256(part) == archive.sha256:
            return
        part.unlink()
        if not begun:  # else the wrong bytes may be those of another mirror: once more, whole
            raise _UnfitError("gives another file")
    raise _UnfitError(f"breaks off after {_size(part):,} of {archive.nbytes:,} bytes")


def _receive(part: Path, url: str, archive: Archive, loading: Loading) -> None:
    """Ask for what is missing, and keep what comes."""
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
                loading(archive.name, at, archive.nbytes, "B")
            out.flush()
            os.fsync(out.fileno())


def _first_byte(answer: http.client.HTTPResponse, begun: int, archive: Archive) -> int:
    """Where the body begins: where it was asked to, or at 0 if the server knows no ranges."""
    if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        given = answer.headers.get("Content-Range", "")
        if not given.startswith(f"bytes {begun}-"):
            raise _UnfitError(f"gives {given or 'some range'!r:.60}, not from byte {begun:,}")
        return begun
    length = answer.headers.get("Content-Length", str(archive.nbytes))
    if length != str(archive.nbytes):
        raise _UnfitError(f"gives {length:.20} bytes, expected {archive.nbytes:,}")
    return 0


def _chunk(answer: http.client.HTTPResponse, nbytes: int) -> bytes:
    """The next bytes; none where the connection breaks off."""
    try:
        return answer.read1(min(_CHUNK, nbytes))
    except (OSError, http.client.HTTPException):
        return b""


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    """In a few words, without urllib's brackets."""
    cause = error.reason if type(error) is URLError else error
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)
