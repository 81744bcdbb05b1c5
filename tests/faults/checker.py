"""Check a registry with the standard library alone; this module shares no code with ckpt.

It knows the format of `registry.json` and of manifests from docs/schemas, and hashes everything.
"""

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Found:
    """What a registry holds.

    Attributes:
        serial: The number of writes to its index.
        versions: The line of each version, by ref; its manifest and all bytes are good.
        removed: Likewise of the removed ones.
        aliases: The refs that aliases point to, by ``model@alias``.
        tags: Pairs of a ref and a tag.
        next_numbers: By model.
    """

    serial: int
    versions: dict[str, dict[str, Any]]
    removed: dict[str, dict[str, Any]]
    aliases: dict[str, str]
    tags: set[tuple[str, str]]
    next_numbers: dict[str, int]


def check(folder: Path) -> Found:
    """Read everything, and fail if anything is damaged, missing or dangling."""
    document = parsed((folder / "registry.json").read_bytes())
    assert document["schema"] == 1
    found = Found(document["serial"], {}, {}, {}, set(), {})
    for name, model in document["models"].items():
        versions, removed = model["versions"], model.get("removed", {})
        assert not versions.keys() & removed.keys(), name
        numbers = [int(label.removeprefix("v")) for label in (*versions, *removed)]
        assert all(0 < number < model["next"] for number in numbers), name
        found.next_numbers[name] = model["next"]
        found.versions.update({f"{name}:{label}": line for label, line in versions.items()})
        found.removed.update({f"{name}:{label}": line for label, line in removed.items()})
        for alias, label in model["aliases"].items():
            assert label in versions, f"{name}@{alias} points to {label}"
            found.aliases[f"{name}@{alias}"] = f"{name}:{label}"
        assert {*model.get("protected", ())} <= {*model["aliases"]}, name
        for tag, labels in model.get("tags", {}).items():
            assert {*labels} <= {*versions}, f"{name}: {tag} is on {labels}"
            found.tags.update((f"{name}:{label}", tag) for label in labels)
    for ref, line in {**found.versions, **found.removed}.items():
        try:
            _check_version(folder / ".ckpt", line)
        except (AssertionError, OSError) as error:
            error.add_note(f"version {ref}")
            raise
    return found


def parsed(data: bytes) -> Any:
    """A JSON document without duplicate keys."""
    return json.loads(data.decode("utf-8"), object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs), pairs
    return dict(pairs)


def _check_version(store: Path, line: dict[str, Any]) -> None:
    for name in (line["manifest"], *line.get("also", ())):
        manifest = _manifest(_stored(store / "manifests", name))
        assert len(manifest["entries"]) == line["keys"]
        inline = {}
        for key, text in manifest["inline"].items():
            inline[key] = zlib.decompress(base64.b64decode(text))
            assert _digest(inline[key]) == key
        objects = {
            key: inline[key] if key in inline else _stored(store / "objects", key)
            for key in _named(manifest)
        }
        whole = b"".join(_pieces(manifest["skeleton"], objects))
        assert len(whole) == line["size"]
        if line["file"] is not None:
            assert _digest(whole) == line["file"] == manifest["file"]["digest"]


def _manifest(data: bytes) -> Any:
    """A manifest of rows, made of columns if it has these."""
    manifest = parsed(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    if manifest["schema"] == 1:
        return manifest
    lengths, packed = manifest["inline"]
    joined, inline = zlib.decompress(base64.b64decode(packed)), {}
    hexadecimal = manifest["digests"]
    names = [f"sha256:{hexadecimal[at : at + 64]}" for at in range(0, len(hexadecimal), 64)]
    for length in lengths:
        piece, joined = joined[:length], joined[length:]
        names.append(_digest(piece))
        inline[names[-1]] = base64.b64encode(zlib.compress(piece)).decode()
    assert not joined

    def objects(steps: list[int]) -> list[str]:
        return [names[sum(steps[: at + 1])] for at in range(len(steps))]

    size, skeleton, gaps, sizes, steps = manifest["skeleton"]
    offsets = [sum(gaps[: at + 1]) + sum(sizes[:at]) for at in range(len(gaps))]
    holes = list(zip(offsets, sizes, objects(steps), strict=True))
    *columns, tensors = manifest["entries"]
    entries = list(zip(*columns, objects(tensors), strict=True))
    table = {"skeleton": [size, names[skeleton], holes], "entries": entries, "inline": inline}
    return {**manifest, **table}


def _named(manifest: dict[str, Any]) -> Iterator[str]:
    """The digests of all objects that a manifest names."""
    _, skeleton, holes = manifest["skeleton"]
    yield skeleton
    yield from (digest for _, _, digest in holes)
    yield from (digest for *_, digest in manifest["entries"])
    if definition := manifest["record"].get("definition"):
        yield definition["digest"]
    yield from (digest for _, _, digest in manifest.get("side_files", ()))


def _pieces(layout: list[Any], objects: dict[str, bytes]) -> Iterator[bytes]:
    """The file: the skeleton with the tensors in its holes."""
    size, name, holes = layout
    skeleton, position, done = objects[name], 0, 0
    for offset, nbytes, digest in (*holes, (size, 0, None)):
        yield skeleton[done : done + offset - position]
        done += offset - position
        if digest is not None:
            assert len(objects[digest]) == nbytes
            yield objects[digest]
        position = offset + nbytes
    assert done == len(skeleton)


def _stored(folder: Path, name: str) -> bytes:
    path = folder / name[len("sha256:") :][:2] / name[len("sha256:") :][2:]
    data = path.read_bytes()
    assert _digest(data) == name, path
    return data


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
