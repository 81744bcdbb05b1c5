"""HTTP requests: time-outs, redirects, and credentials that stay with their host.

Laws: credentials are sent to the scheme, host and port that they are for, whatever redirects
there are; no redirect leads from https to http; at most `REDIRECTS` are followed. Connections
are kept and used again.
"""

import http.client
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from os import environ
from typing import Self
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from ckpt.errors import CkptError, RefError, RemoteError, UsageError, excerpt
from ckpt.remote.elsewhere.ranges import MOST_PAUSE, TransientError

SECONDS = 20.0  # until a connection, an answer, or its next byte
WRITING_SECONDS = 300.0  # until the answer to a body: servers hash and copy it first
REDIRECTS = 5
CHUNK = 1 << 18
_MOVED = (301, 302, 303, 307, 308)
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_GONE = (404, 410)
_REFUSED = (401, 403)
# The bytes of a body from its beginning, in chunks, at each call.
Body = Callable[[], Iterable[bytes]]


class Answer:
    """The head of an answer, and its body; leave the `with` block to give the connection back.

    Attributes:
        url: That was answered, after redirects.
        status: Its number.
    """

    def __init__(
        self,
        web: "Web",
        url: str,
        connection: http.client.HTTPConnection,
        answer: http.client.HTTPResponse,
    ) -> None:
        self.url, self.status = url, answer.status
        self._web, self._connection, self._answer = web, connection, answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._answer.length == 0:  # as of HEAD: the end is read without waiting
            self._answer.read()
        if self._answer.isclosed() and not self._answer.will_close:
            self._web.keep(self.url, self._connection)
        else:
            self._answer.close()  # which alone has the socket if the server ends the connection
            self._connection.close()

    def header(self, name: str) -> str | None:
        """A header's value; the last one's, if a server sends several."""
        return self._answer.headers.get(name)

    @property
    def length(self) -> int | None:
        """The stated bytes of the body."""
        text = self.header("Content-Length") or ""
        return int(text) if text.isdecimal() and len(text) < 20 else None

    def chunks(self, most: int) -> Iterator[bytes]:
        """The body, never more than `most` bytes of it.

        Raises:
            TransientError: The connection broke.
        """
        while most > 0:
            try:
                chunk = self._answer.read(min(CHUNK, most))
            except (OSError, http.client.HTTPException) as error:
                raise TransientError(_reason(error)) from error
            if not chunk:
                return
            most -= len(chunk)
            yield chunk


class Web:
    """A client that keeps its connections.

    Args:
        credentials: Origin, as `origin` gives it, to the value of the header `Authorization`.
    """

    def __init__(self, credentials: Mapping[str, str] | None = None) -> None:
        self._credentials = dict(credentials or {})
        self._idle: dict[str, list[http.client.HTTPConnection]] = {}

    def get(self, url: str, headers: Mapping[str, str] | None = None, *, name: str) -> Answer:
        """Ask for `url`, and follow redirects.

        Args:
            url: Without credentials.
            headers: Besides those that every request has.
            name: What messages call it.

        Raises:
            TransientError: The server cannot be reached now, or is busy.
            RemoteError: It cannot be reached at all, or redirects to where nobody may go.
            RefError: It has no such file.
        """
        return _expect_usable(self.follow("GET", url, headers, name=name), name)

    def follow(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, *, name: str
    ) -> Answer:
        """The answer to GET or HEAD, whatever its status, after redirects.

        Raises:
            TransientError: The server cannot be reached now.
            RemoteError: It cannot be reached at all, or redirects to where nobody may go.
        """
        for _ in range(REDIRECTS + 1):
            answer = self.ask(method, url, headers, name=name)
            if answer.status not in _MOVED:
                return answer
            with answer:
                url = redirected(url, answer.header("Location"), name)
        raise RemoteError(f"{name}: more than {REDIRECTS} redirects")

    def authorize(self, url: str, value: str) -> None:
        """Send `value` as the header `Authorization` to the origin of `url` from now on."""
        self._credentials[origin(url)] = value

    def keep(self, url: str, connection: http.client.HTTPConnection) -> None:
        """Take a connection back for the next request to the same server."""
        self._idle.setdefault(origin(url), []).append(connection)

    def close(self) -> None:
        """Close all connections that are not in use."""
        for connections in self._idle.values():
            while connections:
                connections.pop().close()

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        *,
        name: str,
    ) -> Answer:
        """The answer to one request, whatever its status.

        A connection that was kept may be closed on the other side, so a request on it may have to
        be repeated. Only readers use such, for they may: a write that got no answer is sent once.

        Args:
            method: ``GET``, ``PUT``, …
            url: Without credentials.
            headers: Besides those that every request has; with a body, its `Content-Length`.
            body: What is sent.
            name: What messages call it.

        Raises:
            TransientError: The server cannot be reached now.
            RemoteError: It cannot be reached at all.
        """
        parts, place = urlsplit(url), origin(url)
        sent = {"Accept-Encoding": "identity", "User-Agent": "ckpt", **(headers or {})}
        if place in self._credentials:
            sent["Authorization"] = self._credentials[place]
        proxy = _proxy(parts)
        target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        if proxy is not None and parts.scheme == "http":  # an https one is a tunnel
            target, sent = url, sent | _basic("Proxy-Authorization", proxy)
        reads = method in ("GET", "HEAD")
        seconds = SECONDS if reads else WRITING_SECONDS
        while True:
            kept = None
            with suppress(IndexError):  # other threads take connections, too
                kept = self._idle.get(place, []).pop() if reads else None
            connection = kept or self._connection(parts, proxy)
            _wait(connection, seconds)
            try:
                _send(connection, method, target, sent, body)
                return Answer(self, url, connection, connection.getresponse())
            except CkptError:  # of what is sent
                connection.close()
                raise
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                if kept is None:  # else the server has closed it since
                    raise _unreachable(name, parts, error, seconds) from error

    def _connection(
        self, parts: SplitResult, proxy: SplitResult | None
    ) -> http.client.HTTPConnection:
        host, port = parts.hostname or "", parts.port
        to = (host, port) if proxy is None else (proxy.hostname or "", proxy.port or 80)
        if parts.scheme == "http":
            return http.client.HTTPConnection(*to)
        connection = http.client.HTTPSConnection(*to, context=self._trust)
        if proxy is not None:
            connection.set_tunnel(host, port or 443, _basic("Proxy-Authorization", proxy))
        return connection

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Python's own verification; `SSL_CERT_FILE` names other authorities."""
        return ssl.create_default_context()


def _wait(connection: http.client.HTTPConnection, seconds: float) -> None:
    """Wait for the next bytes of a connection for so long."""
    connection.timeout = seconds
    if connection.sock is not None:
        connection.sock.settimeout(seconds)


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: dict[str, str],
    body: Body | None,
) -> None:
    try:
        connection.request(method, target, body() if body else None, headers)
    except ConnectionError:
        # A server that refuses a body may close before it had all of it, after its answer.
        if body is None or connection.sock is None:
            raise


def origin(url: str) -> str:
    """Scheme, host and port, for which credentials are."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def parted(url: str) -> tuple[str, dict[str, str], str]:
    """A URL without credentials, those by their origin, and what messages call it.

    A query may hold credentials as well (a signed URL), so messages have none.

    Raises:
        UsageError: It is not a URL of the web.
    """
    try:
        parts = urlsplit(url)
        is_url = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or any(ord(char) < 33 or ord(char) > 126 for char in url):
        # It is not repeated: what stands there for a host may be a password.
        raise UsageError("not a URL: no host, a bad port, or characters that must be encoded (%20)")
    host = parts.netloc.rpartition("@")[2]
    scheme, path = parts.scheme.lower(), parts.path or "/"
    plain = urlunsplit((scheme, host, path, parts.query, ""))
    name = urlunsplit((scheme, host, path, "…" if parts.query else "", ""))
    basic = _basic("Authorization", parts)
    return plain, {origin(plain): each for each in basic.values()}, name


def _basic(header: str, parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {header: f"Basic {b64encode(pair.encode()).decode('ascii')}"}


def _proxy(parts: SplitResult) -> SplitResult | None:
    """The proxy for a host, by the environment."""
    if not any(name.lower().endswith("_proxy") for name in environ):
        return None
    found = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    return urlsplit(found) if found and "://" in found else None


def redirected(url: str, location: str | None, name: str) -> str:
    """Where a redirect leads."""
    try:
        plain, _, shown = parted(urljoin(url, location or ""))
    except (UsageError, ValueError) as error:
        raise RemoteError(f"{name}: a redirect to {excerpt(repr(location))}: {error}") from error
    scheme = urlsplit(plain).scheme
    if scheme != "https" and (scheme != "http" or url.startswith("https:")):
        raise RemoteError(
            f"{name}: a redirect from {urlsplit(url).scheme} to {excerpt(shown)}, not followed",
            hint="name the other address if you trust it",
        )
    return plain


def _expect_usable(answer: Answer, name: str) -> Answer:
    """The same, if it is an answer to what was asked.

    Raises:
        TransientError: The server is busy.
        RefError: There is no such file.
        RemoteError: It refuses, or packs the body.
    """
    status = answer.status
    packed = answer.header("Content-Encoding")
    if status in (200, 206, 412, 416) and packed in (None, "", "identity"):
        return answer
    expect_ready(answer)
    with answer:
        if status in _GONE:
            raise RefError(f"{name}: no such file ({status})")
        if status in _REFUSED:
            hint = "private, or not there"
            raise RemoteError(f"{name}: the server refuses it ({status})", hint=hint)
        if packed:
            how = f"packs it ({excerpt(packed)}), though told not to"
            raise RemoteError(f"{name}: the server {how}")
        raise RemoteError(f"{name}: the server answers {status}")


def expect_ready(answer: Answer) -> None:
    """Make sure that the server is not busy.

    Raises:
        TransientError: It is.
    """
    if answer.status in _BUSY:
        with answer:
            after = answer.header("Retry-After") or ""
        seconds = min(float(after), MOST_PAUSE) if after.isdecimal() else 0.0
        raise TransientError(f"the server answers {answer.status}", seconds)


def _unreachable(name: str, parts: SplitResult, error: Exception, seconds: float) -> Exception:
    """What to raise for a request that got no answer."""
    import socket

    if isinstance(error, socket.gaierror | ConnectionRefusedError | ssl.SSLError | ValueError):
        return RemoteError(f"{name}: {parts.hostname} cannot be reached: {_reason(error)}")
    return TransientError(_reason(error, seconds))


def _reason(error: Exception, seconds: float | None = None) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came for {SECONDS if seconds is None else seconds:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return excerpt(str(error)) or type(error).__name__
