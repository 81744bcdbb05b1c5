import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import ckpt, folder, old  # noqa: F401 - fixtures
from tests.remote import azure as azurite
from tests.remote.proxy import Proxy, proxy_before
from tests.remote.servers import KEYS, new_bucket, s3_server, ssh_server


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new, empty bucket."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CKPT_REMOTE_SECONDS", "20")
    return f"s3://{new_bucket(s3_endpoint)}/registry"


@pytest.fixture
def proxy(s3_endpoint: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Stands between `ckpt` and the server; requests are repeated for five seconds."""
    with proxy_before(s3_endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        monkeypatch.setenv("CKPT_REMOTE_SECONDS", "5")
        yield running


@pytest.fixture(scope="session")
def azure_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azurite.azure_server(tmp_path_factory.mktemp("azure")) as endpoint:
        yield endpoint


@pytest.fixture
def azure(azure_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new, empty container."""
    for name, value in azurite.settings(azure_endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CKPT_REMOTE_SECONDS", "20")
    name = f"team-{uuid.uuid4().hex[:12]}"
    azurite.new_container(azure_endpoint, name)
    return f"az://{name}/registry"


@pytest.fixture(scope="session")
def ssh_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose keys and settings lead to a real sshd on this machine, as the host `lab`."""
    with ssh_server(tmp_path_factory.mktemp("ssh")) as home:
        yield home


@pytest.fixture
def sftp(ssh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new, empty folder there."""
    monkeypatch.setenv("HOME", str(ssh_home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return f"ssh://lab{tmp_path}/a%20remote"


@pytest.fixture
def folder_url(tmp_path: Path) -> str:
    return (tmp_path / "a remote").as_uri()
