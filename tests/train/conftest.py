"""No network, no cache and no environment of the machine: a test names what it needs."""

import os
import socket
from pathlib import Path

import pytest

REAL_DATA = os.environ.get("CKPT_DATA")


@pytest.fixture(autouse=True)
def cut_off(tmp_path, monkeypatch):
    """An empty cache, no ``CKPT_DATA``, no proxy, and every look-up of a host name fails."""
    look_up = socket.getaddrinfo

    def fail(host: object, *arguments: object, **options: object) -> object:
        if host == "127.0.0.1":  # a test's own server
            return look_up(host, *arguments, **options)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.delenv("CKPT_DATA", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(socket, "getaddrinfo", fail)


@pytest.fixture
def linear(tmp_path) -> str:
    """Ref of a definition that trains in no time."""
    (tmp_path / "linear.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(dim=1))\n"
    )
    return f"{tmp_path}/linear.py:net"


@pytest.fixture
def real_data() -> Path:
    """The folder that holds the real MNIST, named by ``CKPT_DATA``."""
    if REAL_DATA is None:
        pytest.skip("CKPT_DATA is not set: no real MNIST to read")
    return Path(REAL_DATA)
