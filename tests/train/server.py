"""An HTTP server on this machine that serves files as well or as badly as a test wants."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What it does, and what it was asked.

    Attributes:
        files: Content by path.
        cut: Bytes of a body after which it hangs up, for as many answers as there are numbers.
        ranges: Whether it knows them.
        shift: Added to where a range begins, against what was asked.
        lengths: Whether it says how long a body is.
        moved: Path by path to where it redirects.
        asked: Path and Range of each request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    shift: int = 0
    lengths: bool = True
    moved: Mapping[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Server]:
    """A server, which answers while the block lasts."""
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Be quiet."""

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            told.asked.append((self.path, asked))
            if self.path in told.moved:
                self.send_response(302)
                self.send_header("Location", told.moved[self.path])
                self.end_headers()
            elif self.path not in told.files:
                self.send_error(404)
            else:
                self.give(told.files[self.path], asked)

        def give(self, content: bytes, asked: str | None) -> None:
            begin = 0
            if asked and told.ranges:
                begin = int(asked.removeprefix("bytes=").removesuffix("-")) + told.shift
                self.send_response(206)
                whole = f"bytes {begin}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", whole)
            else:
                self.send_response(200)
            if told.lengths:
                self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            limit = told.cut.pop(0) if told.cut else len(content)
            self.wfile.write(content[begin:][:limit])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        told.url = f"http://127.0.0.1:{server.server_address[1]}/"
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
