import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from ckpt.remote.elsewhere import ranges, web
from tests.cli.conftest import ckpt, folder  # noqa: F401 - fixtures
from tests.remote.elsewhere.counted import Relay
from tests.remote.elsewhere.web_server import WebServer

KEYS = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}


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
def other(served: WebServer) -> Iterator[WebServer]:
    """A second server, so another origin."""
    second = WebServer()
    server = second.start()
    yield second
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def moto() -> Iterator[tuple[str, int]]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def relay(
    moto: tuple[str, int], monkeypatch: pytest.MonkeyPatch, served: WebServer
) -> Iterator[Relay]:
    between = Relay(*moto)
    for name, value in {**KEYS, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": between.url}.items():
        monkeypatch.setenv(name, value)
    yield between
    between.close()


class Bucket:
    """A new bucket, filled and read by the SDK of the protocol's owner."""

    def __init__(self, host: str, port: int) -> None:
        import boto3

        self.name, self.url = f"team-{uuid.uuid4().hex[:12]}", ""
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=f"http://{host}:{port}",
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        self.client.create_bucket(Bucket=self.name)
        self.url = f"s3://{self.name}"

    def put(self, key: str, data: bytes) -> str:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)
        return f"{self.url}/{key}"

    def get(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return [each["Key"] for each in found]

    def unfinished(self) -> list[object]:
        found = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        return list(found)


@pytest.fixture
def bucket(moto: tuple[str, int], relay: Relay) -> Bucket:
    return Bucket(*moto)
