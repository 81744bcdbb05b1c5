from collections.abc import Iterator
from pathlib import Path

import pytest

from ckpt.cli import main
from ckpt.remote.elsewhere import ranges, web
from tests.cli.support import Ran, Run
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


@pytest.fixture
def ckpt(folder: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in the empty folder."""

    def run(*words: str) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as done:
            main(words)
        out, err = capfd.readouterr()
        assert isinstance(done.value.code, int)
        return Ran(done.value.code, out, err)

    return run


@pytest.fixture
def other(served: WebServer) -> Iterator[WebServer]:
    """A second server, so another origin."""
    second = WebServer()
    server = second.start()
    yield second
    server.shutdown()
    server.server_close()
