from collections.abc import Iterator
from pathlib import Path

import pytest

from ckpt.remote.elsewhere import ranges, web
from tests.remote.elsewhere.web_server import WebServer


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A web server without files; attempts follow each other without waiting."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ranges, "PAUSE", 0.0)
    monkeypatch.setattr(ranges, "MOST_PAUSE", 0.0)
    serving = WebServer()
    server = serving.start()
    yield serving
    server.shutdown()
    server.server_close()


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SECONDS", 0.2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
