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

    def start(self) -> "ThreadingHTTPServer":
        server = _Server(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Clients hang up whenever they like."""


def _handler(web: WebServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET(body=False)

        def do_GET(self, *, body: bool = True) -> None:
            path = unquote(urlsplit(self.path).path).removeprefix("/")
            asked = Asked(self.path, {k.lower(): v for k, v in self.headers.items()})
            web.asked.append(asked)
            if not web.allowed(asked):
                return self.plain(asked, 401)
            if web.failures:
                return self.plain(asked, web.failures.pop(0))
            if path in web.redirects:
                return self.plain(asked, 302, {"Location": web.redirects[path]})
            if path in web.answers:
                content = web.answers[path](asked)
            elif path in web.files:
                content = web.files[path]
            else:
                return self.plain(asked, 404, web.missing)
            return self.content(asked, path, content, body=body)

        def plain(self, asked: Asked, status: int, headers: dict[str, str] | None = None) -> None:
            asked.status = status
            self.send_response(status)
            own = web.headers.get(unquote(urlsplit(self.path).path).removeprefix("/"), {})
            for name, value in {**web.extra, **own, **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def content(self, asked: Asked, path: str, content: bytes, *, body: bool) -> None:
            etag = web.etag(path)
            wanted = self.headers.get("If-Match")
            if wanted and wanted != etag:
                return self.plain(asked, 412)
            begin, end = 0, len(content)
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            ranged = bool(found) and web.ranges
            if found and ranged:
                begin = int(found[1])
                end = min(end, int(found[2]) + 1 if found[2] else end)
                if begin >= len(content):
                    return self.plain(asked, 416, {"Content-Range": f"bytes */{len(content)}"})
            asked.status = 206 if ranged else 200
            self.send_response(asked.status)
            if ranged:
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
            if etag:
                self.send_header("ETag", etag)
            for name, value in {**web.extra, **web.headers.get(path, {})}.items():
                self.send_header(name, value)
            if web.length:
                self.send_header("Content-Length", str(end - begin + len(web.longer)))
            else:
                self.close_connection = True
                self.send_header("Connection", "close")
            self.end_headers()
            if body:
                self.body(asked, content[begin:end] + web.longer, begin)
            return None

        def body(self, asked: Asked, data: bytes, begin: int) -> None:
            if web.silent:
                self.rfile.read(1)  # until the client hangs up
                self.close_connection = True
                return
            cut = web.cut_at and begin <= web.cut_at[0] < begin + len(data)
            if cut:
                data = data[: web.cut_at.pop(0) - begin]
                self.close_connection = True
            try:
                self.wfile.write(data)
            except OSError:  # the client has hung up
                self.close_connection = True
                return
            asked.sent += len(data)

    return Handler
