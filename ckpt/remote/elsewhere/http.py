"""Files of a web server, by HTTP range requests (RFC 9110, 14).

A server without ranges sends files whole: small ones are taken, larger ones if they are needed.
Every answer must be of the file that was opened, by its entity tag, date and size.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from ckpt.errors import FormatError, RefError, RemoteError, UsageError
from ckpt.io.files import disk_errors, expect_room
from ckpt.io.sources import FileSource, OpenSource, Part
from ckpt.remote.elsewhere.place import Opening, Place
from ckpt.remote.elsewhere.ranges import BLOCK, RangedSource, TransientError, patiently
from ckpt.remote.elsewhere.web import Answer, Web, parted

SMALL = 16_000_000  # bytes of a file that is taken whole without being asked
MOST = 1 << 40  # bytes of any file that is taken whole
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class HttpPlace(Place):
    """The files beside a URL.

    Args:
        url: With credentials, if it has some.
    """

    def __init__(self, url: str) -> None:
        self._url, credentials, name = parted(url)
        self.name = name.removesuffix("?…").rpartition("/")[0]
        self._web = Web(credentials)

    def opened(self, name: str, opening: Opening) -> OpenSource:
        """The file of this name; the query of the URL goes with each."""
        parts = urlsplit(urljoin(self._url, "."))
        own = name == base_name(self._url)  # whose spelling is kept
        path = parts.path + (_last(self._url) if own else quote(name))
        url = urlunsplit((*parts[:2], path, urlsplit(self._url).query, ""))
        return open_http(self._web, url, base=name, name=f"{self.name}/{name}", opening=opening)

    def close(self) -> None:
        self._web.close()


def place(url: str) -> tuple[HttpPlace, str]:
    """The place of a URL, and the name of its file.

    Raises:
        UsageError: It does not name a file.
    """
    found, name = HttpPlace(url), base_name(url)
    if not name:
        raise UsageError(
            f"{found.name}/: the URL of a folder, which a web server cannot list",
            hint=f"name a file: {found.name}/model.safetensors",
        )
    return found, name


def folder(url: str) -> HttpPlace:
    """The place that a URL names, with or without a slash at its end."""
    path, mark, query = url.partition("?")
    return HttpPlace(path.rstrip("/") + "/" + mark + query)


def _last(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]


def base_name(url: str) -> str:
    """The name of the file that a URL names."""
    return unquote(_last(url))


class HttpFile:
    """A file that a server sends in ranges; a `RemoteFile`."""

    def __init__(self, web: Web, url: str, name: str, first: Answer, size: int) -> None:
        self.name, self.size = name, size
        self._web, self._url, self._at = web, url, first.url
        self.etag = first.header("ETag")
        self._date = first.header("Last-Modified")

    def close(self) -> None:
        self._web.close()

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        with self._asked(offset, nbytes) as answer:
            if answer.status != 206 or not self._is_same(answer):
                raise RemoteError(
                    f"{self.name}: changed while it was read", hint="run the command again"
                )
            if _place_of(answer) != (offset, self.size):
                raise RemoteError(f"{self.name}: the server sends another range than asked for")
            yield from answer.chunks(nbytes)

    def _asked(self, offset: int, nbytes: int) -> Answer:
        headers = {"Range": f"bytes={offset}-{offset + nbytes - 1}"}
        if self.etag and not self.etag.startswith("W/"):
            headers["If-Match"] = self.etag
        elif self._date:
            headers["If-Unmodified-Since"] = self._date
        try:
            answer = self._web.get(self._at, headers, name=self.name)
        except (RemoteError, RefError):
            if self._at == self._url:
                raise
            # The address that it was redirected to has expired.
            answer = self._web.get(self._url, headers, name=self.name)
        self._at = answer.url
        return answer

    def _is_same(self, answer: Answer) -> bool:
        return (answer.header("ETag"), answer.header("Last-Modified")) == (self.etag, self._date)


def open_http(web: Web, url: str, *, base: str, name: str, opening: Opening) -> OpenSource:
    """Open a file, with one request that brings its first block.

    Args:
        web: The client.
        url: Without credentials.
        base: The file's name in its checkpoint.
        name: What messages call it.
        opening: How much may be taken whole; gets the entity tag.

    Raises:
        RefError: The server has no such file.
        RemoteError: It cannot be reached, refuses, or sends only whole files and this is large.
        FormatError: The file is empty.
    """

    def opened() -> OpenSource:
        with web.get(url, {"Range": f"bytes=0-{BLOCK - 1}"}, name=name) as answer:
            if answer.status == 416 or answer.length == 0:
                raise FormatError(f"{name}: an empty file")
            opening.note(base, etag=answer.header("ETag"))
            if answer.status != 206:
                return _whole(answer, base, name, opening)
            begin, size = _place_of(answer)
            if begin != 0:
                raise RemoteError(f"{name}: the server sends another range than asked for")
            wanted = min(BLOCK, size)
            head = b"".join(answer.chunks(wanted))
            if len(head) < wanted:
                raise TransientError("the connection broke")
            return RangedSource(HttpFile(web, url, name, answer, size), base, head)

    return patiently(name, opened)


def small(
    web: Web, url: str, *, most: int, name: str, headers: Mapping[str, str] | None = None
) -> bytes:
    """The body of a small document.

    Raises:
        RemoteError: It has more than `most` bytes.
    """

    def read() -> bytes:
        with web.get(url, headers, name=name) as answer:
            data = b"".join(answer.chunks(most + 1))
            if len(data) > most:
                raise RemoteError(f"{name}: more than {most:,} bytes")
            if answer.length is not None and len(data) < answer.length:
                raise TransientError("the connection broke")
            return data

    return patiently(name, read)


def _place_of(answer: Answer) -> tuple[int, int]:
    """Where the range of an answer begins, and the size of the file; (-1, -1) if it says none."""
    found = _RANGE.fullmatch(answer.header("Content-Range") or "")
    return (int(found[1]), int(found[3])) if found else (-1, -1)


def _whole(answer: Answer, base: str, name: str, opening: Opening) -> OpenSource:
    """A file that the server sends whole, in a temporary file."""
    size, most = answer.length, MOST if opening.whole else SMALL
    if size is None or size > most:
        how_much = "of unknown size" if size is None else f"of {size:,} bytes"
        raise RemoteError(
            f"{name}: the server cannot send parts of a file, and this one is {how_much}",
            hint="download it, and name that file",
        )
    expect_room(Path(tempfile.gettempdir()), size)
    with tempfile.NamedTemporaryFile(prefix="ckpt-") as file, disk_errors(Path(file.name)):
        for chunk in answer.chunks(size):
            file.write(chunk)
        if file.tell() < size:
            raise TransientError(f"the connection broke at byte {file.tell():,}")
        file.flush()
        source = FileSource(Path(file.name))  # it stays readable when the name is gone
    source.name, source.parts = name, (Part(base, 0, size),)
    return source
