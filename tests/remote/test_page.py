"""The page on remotes is true: its commands run, against S3 over HTTP, and print what it shows.

`CKPT_WRITE_README=1 pytest tests/remote/test_page.py` writes what is printed into it.
"""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.remote.pusher import write
from tests.remote.servers import KEYS
from tests.test_readme import bash

PAGE = Path(__file__).parent.parent.parent / "docs" / "remotes.md"
_BLOCK = re.compile(r"^```team\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^([a-z]+)\$ (.*)\n", re.MULTILINE)


@pytest.mark.long
def test_page_shows_what_the_commands_print(s3_endpoint: str, tmp_path: Path) -> None:
    make_bucket(s3_endpoint)
    text = PAGE.read_text(encoding="utf-8")
    found = _BLOCK.sub(lambda block: f"```team\n{typed(block[1], s3_endpoint, tmp_path)}```", text)
    assert found.count("$ ckpt") + found.count("&& ckpt") >= 14
    if os.environ.get("CKPT_WRITE_README"):
        PAGE.write_text(found, encoding="utf-8")
        return
    assert plain(found) == plain(text)


def make_bucket(endpoint: str) -> None:
    import boto3

    keys = {"aws_access_key_id": "AKIATEST", "aws_secret_access_key": "s3cr3t"}
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys).create_bucket(
        Bucket="team-models"
    )


def typed(block: str, endpoint: str, top: Path) -> str:
    """A block with what its commands print."""
    _, *parts = _COMMAND.split(block)
    lines = []
    for who, command in zip(parts[::3], parts[1::3], strict=True):
        folder = top / who
        if not folder.exists():
            folder.mkdir()
            for number, name in enumerate(("net", "ann", "bob")):
                write(folder / f"{name}.safetensors", name.encode().ljust(8000, b"%d" % number))
        lines.append(f"{who}$ {command}\n{shell(command, folder, endpoint, who)}")
    return "".join(lines)


def shell(command: str, folder: Path, endpoint: str, who: str) -> str:
    environment = {
        **os.environ,
        **KEYS,
        "AWS_ENDPOINT_URL": endpoint,
        "CKPT_AUTHOR": who.title(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONUTF8": "1",
    }
    done = bash(command, folder, environment)
    assert done.returncode == 0, done.stdout
    return re.sub(r"created a registry: .*\n", "", done.stdout)


def plain(text: str) -> str:
    """Without what differs each time: digests, which name times and machines, and seconds."""
    return re.sub(r"sha256:[0-9a-f]{8}|[\d.]+ s$|[\d.]+ k?B", "N", text, flags=re.MULTILINE)
