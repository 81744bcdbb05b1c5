"""The page on checkpoints elsewhere shows what its commands print, against real servers.

`CKPT_WRITE_README=1 pytest tests/remote/elsewhere/test_page.py` writes that into it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.remote.elsewhere.conftest import Bucket
from tests.remote.elsewhere.hub_server import Hub
from tests.remote.elsewhere.web_server import WebServer
from tests.test_readme import ROOT, refreshed, shell

PAGE = ROOT / "docs" / "elsewhere.md"
HOST = "https://models.example"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def session(
    folder: Path,
    bucket: Bucket,
    served: WebServer,
    other: WebServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """Everything that the page names, and `net.pt` in the folder."""
    folder = folder / "work"
    folder.mkdir()
    torch.manual_seed(0)
    shapes = {"conv1.weight": (32, 1, 3, 3), "conv1.bias": (32,), "fc.weight": (10, 262144)}
    weights = {key: torch.randn(shape) for key, shape in shapes.items()}
    save_file(weights, folder / "net.safetensors")
    data = (folder / "net.safetensors").read_bytes()
    (folder / "net.safetensors").rename(folder.parent / "net.safetensors")
    torch.save(weights, folder / "net.pt")
    served.files["net.safetensors"] = data
    bucket.client.create_bucket(Bucket="models")
    bucket.client.put_object(Bucket="models", Key="net.safetensors", Body=data)
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    Hub(served, other).commit("acme/net", {"model.safetensors": data, "config.json": b"{}"}, "main")
    team = folder.parent / "team"
    team.mkdir()
    shell("ckpt registry init", folder)
    shell("ckpt register net.pt --registry ../team --alias prod", folder)
    for path in team.rglob("*"):
        if path.is_file():
            served.files[f"team/{path.relative_to(team).as_posix()}"] = path.read_bytes()
    yield folder
    for key in ("net.safetensors", "net2.safetensors"):
        bucket.client.delete_object(Bucket="models", Key=key)
    bucket.client.delete_bucket(Bucket="models")


@pytest.mark.long
def test_page_shows_what_the_commands_print(session: Path, served: WebServer) -> None:
    text = PAGE.read_text(encoding="utf-8")

    def refresh(block: re.Match[str]) -> str:
        there = block[1].replace(HOST, served.url)
        found = refreshed(there, session, same=without_digests).replace(served.url, HOST)
        return f"```console\n{found}```"

    found = _BLOCK.sub(refresh, text)
    if os.environ.get("CKPT_WRITE_README"):
        PAGE.write_text(found, encoding="utf-8")
    assert found == text or os.environ.get("CKPT_WRITE_README")


def without_digests(text: str) -> str:
    return re.sub(r"sha256:[0-9a-f]+", "sha256:N", text)
