"""Azurite, Microsoft's emulator of Azure's blobs, and requests to it by the standard library.

`npm install -g azurite` installs it. Its account and key are public (Azurite README, Default
Storage Account). Requests are signed as "Authorize with Shared Key" of Azure's REST API says.
"""

import base64
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
PLACE = "AZURITE_BLOB_STORAGE_URL"  # where obstore looks for the emulator
VERSION = "2021-08-06"


@contextmanager
def azure_server(folder: Path) -> Iterator[str]:
    """The endpoint of Azurite, which keeps its blobs in a folder."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--location", str(folder), "--blobPort", str(port), "--disableTelemetry"]
    command += ["--skipApiVersionCheck"]  # obstore may speak a newer version than it knows
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        lines = iter(server.stdout.readline, "")
        said = [*_until("successfully listens on", lines)]
        try:
            assert server.poll() is None, "".join(said)
            # Nobody reads what it says about requests, and a full pipe would stop it.
            threading.Thread(target=lambda: [*lines], daemon=True).start()
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _until(text: str, lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if text in line:
            return


def new_container(endpoint: str, name: str) -> None:
    """Make a container."""
    request("PUT", endpoint, name, "restype:container")


def blob(endpoint: str, path: str) -> bytes | None:
    """The bytes of ``container/path``; None if there is no such blob."""
    try:
        return request("GET", endpoint, path)
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return None


def request(method: str, endpoint: str, path: str, query: str = "") -> bytes:
    """The answer to a signed request without a body."""
    date = formatdate(usegmt=True)
    lines = [method, *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{VERSION}"]
    lines += [f"/{ACCOUNT}/{ACCOUNT}/{path}", *[query] * bool(query)]
    signed = hmac.new(base64.b64decode(KEY), "\n".join(lines).encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": VERSION,
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signed).decode()}",
    }
    if method == "PUT":
        headers["Content-Length"] = "0"
    url = f"{endpoint}/{ACCOUNT}/{path}?{query.replace(':', '=')}"
    with urllib.request.urlopen(
        urllib.request.Request(url, method=method, headers=headers)
    ) as answer:
        return bytes(answer.read())


def settings(endpoint: str) -> dict[str, str]:
    """The environment in which obstore finds it."""
    return {"AZURE_STORAGE_USE_EMULATOR": "true", PLACE: endpoint}


def endpoint_here() -> str:
    """The endpoint of this environment."""
    return os.environ[PLACE]
