"""A proxy before an S3 server, which makes the faults of networks and of poor servers."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

CONDITIONS = ("if-match", "if-none-match")


@dataclass
class Request:
    """A request on its way, numbered from 1 among those of its kind, such as ``PUT objects``."""

    method: str
    path: str
    number: int

    @property
    def is_index(self) -> bool:
        return self.path.endswith("/registry.json")


@dataclass(frozen=True)
class Fault:
    """What happens to a request.

    Attributes:
        status: The answer; 0 for the server's own.
        happens: Whether the server gets the request all the same.
        drops: Whether the connection ends without an answer.
        cut: Bytes of the answer's body that come before the connection ends.
        ignores: Whether the server does not see conditions.
        body: The body of the answer, in place of the server's.
    """

    status: int = 0
    happens: bool = True
    drops: bool = False
    cut: int | None = None
    ignores: bool = False
    body: bytes | None = None


Rule = Callable[[Request], Fault | None]


@dataclass
class Proxy:
    """The endpoint of the proxy, its rule, and the requests that it saw."""

    endpoint: str
    rule: Rule = lambda request: None
    seen: list[Request] = field(default_factory=list)
    faults: list[tuple[Request, Fault]] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def proxy_before(server: str) -> Iterator[Proxy]:
    """Run a proxy in a thread."""
    running = _Server(urlsplit(server).netloc)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield running.proxy
    finally:
        running.shutdown()
        running.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.counting = target, threading.Lock()
        self.proxy = Proxy(f"http://127.0.0.1:{self.server_address[1]}")

    def fault_of(self, method: str, path: str) -> Fault | None:
        """Count a request, and ask the rule about it."""
        proxy, kind = self.proxy, _kind(path)
        with self.counting:
            same = [
                each for each in proxy.seen if (each.method, _kind(each.path)) == (method, kind)
            ]
            request = Request(method, path, len(same) + 1)
            proxy.seen.append(request)
            fault = proxy.rule(request)
            if fault is not None:
                proxy.faults.append((request, fault))
        return fault


def _kind(path: str) -> str:
    return path.rpartition("/registry/")[2].partition("/")[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault_of(self.command, urlsplit(self.path).path)
        self.answer(body, fault or Fault())

    def answer(self, body: bytes, fault: Fault) -> None:
        status, headers, data = fault.status or 200, {}, b""
        if fault.happens:
            status, headers, data = self.forwarded(body, fault)
        if fault.drops:
            self.close_connection = True
            return
        if fault.status:
            status, headers, data = fault.status, {}, _ERROR
        if fault.body is not None:
            data, headers = fault.body, {**headers, "Content-Length": str(len(fault.body))}
        self.send(status, headers, data, fault.cut)

    def forwarded(self, body: bytes, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        headers = {
            name: value
            for name, value in self.headers.items()
            if not (fault.ignores and name.lower() in CONDITIONS)
        }
        connection.request(self.command, self.path, body, headers)
        reply = connection.getresponse()
        data = reply.read()
        found = {name: value for name, value in reply.getheaders() if name.lower() not in _OWN}
        if self.command == "HEAD":
            found["Content-Length"] = reply.headers["Content-Length"] or "0"
        connection.close()
        return reply.status, found, data

    def send(self, status: int, headers: dict[str, str], data: bytes, cut: int | None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


_OWN = ("connection", "date", "server", "content-length", "transfer-encoding")
_ERROR = b'<?xml version="1.0"?><Error><Code>Injected</Code><Message>injected</Message></Error>'
