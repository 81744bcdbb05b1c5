"""A web server over loopback whose files, ranges and faults a test chooses; it counts."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Asked:
    """One request, and the bytes of the body that were sent for it."""

    path: str
    headers: dict[str, str]
    sent: int = 0
    status: int = 0


@dataclass
class WebServer:
    """What it serves, and how badly.

    Attributes:
        files: Path, without its first slash, to content.
        ranges: Whether it knows ranges.
        etag: The entity tag of a file; None sends none.
        failures: Statuses that the next requests are answered with.
        cut_at: The body breaks off before this byte of the file, once for each entry.
        redirects: Path to the URL that it redirects to.
        longer: Bytes that follow the body that was asked for.
        silent: Whether bodies never come.
        extra: Headers of every answer.
        missing: Headers of the answer 404.
        headers: Headers of the answer for a path.
        length: Whether it says how long a body is.
        answers: Path to what makes its content.
        allowed: Whether a request may be answered; else 401.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: Callable[[str], str | None] = lambda path: f'"{path}-1"'
    failures: list[int] = field(default_factory=list)
    cut_at: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    longer: bytes = b""
    silent: bool = False
    length: bool = True
    extra: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    allowed: Callable[[Asked], bool] = lambda asked: True
    answers: dict[str, Callable[[Asked], bytes]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    @property
    def sent(self) -> int:
        """The bytes of all bodies."""
        return sum(each.sent for each in self.asked)

    def start(self) -> ThreadingHTTPServer:
        server = _Server(self)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server


class _Server(ThreadingHTTPServer):
    def __init__(self, web: WebServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.web = web

    def handle_error(self, *_: object) -> None:
        """Clients hang up whenever they like."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: _Server

    @property
    def web(self) -> WebServer:
        return self.server.web

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, *, body: bool = True) -> None:
        path = unquote(urlsplit(self.path).path).removeprefix("/")
        asked = Asked(self.path, {k.lower(): v for k, v in self.headers.items()})
        self.web.asked.append(asked)
        if not self.web.allowed(asked):
            return self.plain(asked, 401)
        if self.web.failures:
            return self.plain(asked, self.web.failures.pop(0))
        if path in self.web.redirects:
            return self.plain(asked, 302, {"Location": self.web.redirects[path]})
        if path in self.web.answers:
            content = self.web.answers[path](asked)
        elif path in self.web.files:
            content = self.web.files[path]
        else:
            return self.plain(asked, 404, self.web.missing)
        return self.content(asked, path, content, body=body)

    def plain(self, asked: Asked, status: int, headers: dict[str, str] | None = None) -> None:
        asked.status = status
        self.send_response(status)
        own = self.web.headers.get(unquote(urlsplit(self.path).path).removeprefix("/"), {})
        for name, value in {**self.web.extra, **own, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def content(self, asked: Asked, path: str, content: bytes, *, body: bool) -> None:
        etag, part = self.web.etag(path), self.part(len(content))
        if self.headers.get("If-Match") not in (None, "", etag):
            return self.plain(asked, 412)
        begin, end = part or (0, len(content))
        if part and begin >= len(content):
            return self.plain(asked, 416, {"Content-Range": f"bytes */{len(content)}"})
        asked.status = 206 if part else 200
        self.send_response(asked.status)
        if part:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        if etag:
            self.send_header("ETag", etag)
        for name, value in {**self.web.extra, **self.web.headers.get(path, {})}.items():
            self.send_header(name, value)
        self.end_headers_of(end - begin + len(self.web.longer))
        if body:
            self.body(asked, content[begin:end] + self.web.longer, begin)
        return None

    def part(self, size: int) -> tuple[int, int] | None:
        """Where the range that is asked for begins and ends; None without one."""
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if found is None or not self.web.ranges:
            return None
        return int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)

    def end_headers_of(self, nbytes: int) -> None:
        """The last headers, before a body of so many bytes."""
        if self.web.length:
            self.send_header("Content-Length", str(nbytes))
        else:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()

    def body(self, asked: Asked, data: bytes, begin: int) -> None:
        if self.web.silent:
            self.rfile.read(1)  # until the client hangs up
            self.close_connection = True
            return
        cut = self.web.cut_at and begin <= self.web.cut_at[0] < begin + len(data)
        if cut:
            data = data[: self.web.cut_at.pop(0) - begin]
            self.close_connection = True
        try:
            self.wfile.write(data)
        except OSError:  # the client has hung up
            self.close_connection = True
            return
        asked.sent += len(data)
