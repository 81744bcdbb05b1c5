"""Checks a remote with the standard library alone: no code of ckpt takes part.

Where small objects are is computed as docs/remotes.md describes it.
"""

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.remote import azure

Get = Callable[[str], bytes | None]
SMALL, MEAN, MOST = 65_536, 4_194_304, 8_388_608  # bytes


def get_of(url: str) -> Get:
    """Reads the objects of a remote: a folder's files, also of a server here, S3's, or Azure's."""
    if url.startswith("ssh://"):
        _, _, path = url.removeprefix("ssh://").partition("/")
        return _of_chains(Path("/", unquote(path)))
    if url.startswith("az://"):
        place = url.removeprefix("az://")
        return lambda path: azure.blob(azure.endpoint_here(), f"{place}/{path}")
    if not url.startswith("s3://"):
        top = Path(unquote(url.removeprefix("file://")))
        return lambda path: (top / path).read_bytes() if (top / path).exists() else None
    import os

    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    bucket, _, prefix = url.removeprefix("s3://").partition("/")

    def get(path: str) -> bytes | None:
        try:
            found = client.get_object(Bucket=bucket, Key=f"{prefix}/{path}")
        except client.exceptions.NoSuchKey:
            return None
        return bytes(found["Body"].read())

    return get


def _of_chains(top: Path) -> Get:
    """Reads files each of which may be followed by another: ``ckpt/next/PATH/SHA256``."""

    def get(path: str) -> bytes | None:
        place, data = top / path, None
        while place.exists():
            data = place.read_bytes()
            place = top / "ckpt/next" / path.replace("/", "+") / hashlib.sha256(data).hexdigest()
        return data

    return get


def problems_of(ckpt: Any, folder: Path) -> list[str]:
    """What is wrong on the remote `origin` of a registry."""
    remotes = json.loads((folder / ".ckpt" / "remotes.json").read_bytes())["remotes"]
    return problems(get_of(remotes["origin"]["url"]))


def index_of(get: Get) -> dict[str, Any]:
    document = get("registry.json")
    assert document is not None
    index: dict[str, Any] = json.loads(document)
    return index


def problems(get: Get) -> list[str]:
    """What is wrong with a remote: an absent or damaged object, a number with two meanings."""
    found = []
    for name, model in index_of(get)["models"].items():
        lines = {**model["versions"], **model.get("removed", {})}
        contents = [line["content"] for line in lines.values()]
        if len({*contents}) != len(contents):
            found.append(f"{name}: a version is there twice")
        if any(int(label[1:]) >= model["next"] for label in lines):
            found.append(f"{name}: a number is not below next")
        found += [f"{name}@{a}: {v}" for a, v in model["aliases"].items() if v not in lines]
        for label, line in lines.items():
            found += [f"{name}:{label}: {each}" for each in _of_version(get, line["manifest"])]
    return found


def _of_version(get: Get, manifest: str) -> list[str]:
    data = get(_path("manifests", manifest))
    if data is None or _digest(data) != manifest:
        return ["manifest is absent or damaged"]
    plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    sizes = _sizes(json.loads(plain))
    packed = {name: content for pack in packs_of(sizes) for name, content in _split(get, pack)}
    found = []
    for name in sizes:
        content = packed.get(name) or get(_path("objects", name))
        if content is None or _digest(content) != name:
            found.append(f"{name} is absent or damaged")
    return found


def _sizes(manifest: dict[str, Any]) -> dict[str, int]:
    """The objects that a manifest of rows names and does not hold itself, in its order."""
    assert manifest["schema"] == 1
    for name, packed in manifest["inline"].items():
        assert _digest(zlib.decompress(base64.b64decode(packed))) == name
    size, skeleton, holes = manifest["skeleton"]
    sizes = {name: nbytes for _, nbytes, name in holes}
    sizes[skeleton] = size - sum(nbytes for _, nbytes, _ in holes)
    named = [entry[3] for entry in manifest["entries"]] + [*sizes]
    return {name: sizes[name] for name in named if name not in manifest["inline"]}


def packs_of(sizes: dict[str, int]) -> list[dict[str, int]]:
    """The packs of the objects of a version, each with the sizes of what it holds."""
    packs: list[dict[str, int]] = [{}]
    for name, nbytes in sizes.items():
        if nbytes > SMALL:
            continue
        if sum(packs[-1].values()) + nbytes > MOST:
            packs.append({})
        packs[-1][name] = nbytes
        if int(name[len("sha256:") :][:8], 16) / 2**32 < nbytes / MEAN:
            packs.append({})
    return [pack for pack in packs if len(pack) > 1]


def path_of_pack(pack: dict[str, int]) -> str:
    return _path("packs", _digest("".join(f"{name}\n" for name in pack).encode()))


def _split(get: Get, pack: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    content = get(path_of_pack(pack))
    if content is None:
        return
    assert len(content) == sum(pack.values())
    for name, nbytes in pack.items():
        yield name, content[:nbytes]
        content = content[nbytes:]


def _path(kind: str, name: str) -> str:
    hexadecimal = name.removeprefix("sha256:")
    return f"{kind}/{hexadecimal[:2]}/{hexadecimal[2:]}"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
