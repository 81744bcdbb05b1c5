from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.servers import KEYS, new_bucket, s3_server


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
def folder_url(tmp_path: Path) -> str:
    return (tmp_path / "a remote").as_uri()
