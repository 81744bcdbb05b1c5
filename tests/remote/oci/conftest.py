import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ckpt.remote.elsewhere import ranges
from tests.cli.conftest import ckpt, folder  # noqa: F401 - fixtures
from tests.remote.elsewhere.conftest import other, served, short_timeout  # noqa: F401 - fixtures
from tests.remote.proxy import Proxy, proxy_before

NAME, PASSWORD = "ann", "s3cr3t-w0rd"


@contextmanager
def docker_registry(place: Path, *, auth: str = "") -> Iterator[str]:
    """The host and port of Docker's own registry, which runs as long as the block."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    settings = place / "registry.yml"
    settings.write_text(
        f"version: 0.1\nlog: {{level: info}}\nhttp: {{addr: '{host}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{place}/stored'}}}}\n{auth}"
    )
    log = place / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [program, "serve", str(settings)], stdout=out, stderr=subprocess.PIPE, text=True
        ) as server,
    ):
        assert server.stderr is not None
        while "listening on" not in (line := server.stderr.readline()):
            assert line, "docker-registry has ended"
        # Its log would fill the pipe.
        with subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL):
            try:
                yield host
            finally:
                server.terminate()


@pytest.fixture(scope="session")
def docker_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def docker_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """Docker's settings are those of a test; failed requests are repeated at once."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ranges, "PAUSE", 0.0)
    monkeypatch.setattr(ranges, "MOST_PAUSE", 0.0)
    settings = folder / "docker"
    settings.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(settings))
    return settings


@pytest.fixture
def repository(docker_host: str, docker_settings: Path) -> str:
    """A new, empty repository of a real registry: ``oci://host/team-…/net``."""
    return f"oci://{docker_host}/team-{uuid.uuid4().hex[:12]}/net"


@pytest.fixture
def proxied(repository: str, docker_host: str) -> Iterator[tuple[str, Proxy]]:
    """The same repository behind a proxy that makes faults, and the proxy."""
    with proxy_before(f"http://{docker_host}") as running:
        yield repository.replace(docker_host, running.endpoint.removeprefix("http://")), running


@pytest.fixture
def locked(
    tmp_path_factory: pytest.TempPathFactory, docker_settings: Path
) -> Iterator[tuple[str, Path]]:
    """A repository of a real registry with a password, and the folder of Docker's settings."""
    import bcrypt

    place = tmp_path_factory.mktemp("locked")
    known = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (place / "htpasswd").write_text(f"{NAME}:{known}\n")
    auth = f"auth: {{htpasswd: {{realm: team, path: '{place}/htpasswd'}}}}\n"
    with docker_registry(place, auth=auth) as host:
        yield f"oci://{host}/team/net", docker_settings
