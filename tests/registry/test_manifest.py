import base64
import gzip
import json
import random
import re
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import IntegrityError
from ckpt.io import digest
from ckpt.registry import manifest as manifest_module
from ckpt.registry.columns import to_rows
from ckpt.registry.manifest import Hole, Manifest, Record, Skeleton
from ckpt.tensors import TensorEntry

blobs = st.binary(max_size=64)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner),
    max_leaves=5,
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    tensors = draw(st.lists(blobs, max_size=4))
    holes, position = [], draw(st.integers(0, 9))
    for data in tensors:
        holes.append(Hole(position, len(data), digest.of_bytes(data)))
        position += len(data) + draw(st.integers(0, 9))
    around = position - sum(map(len, tensors))
    own = draw(st.binary(min_size=around, max_size=around))
    return Manifest(
        format="safetensors",
        file_name=draw(st.text(max_size=9)),
        file_digest=draw(st.none() | blobs.map(digest.of_bytes)),
        skeleton=Skeleton(position, tuple(holes), digest.of_bytes(own)),
        entries=tuple(
            TensorEntry(f"k{i}", "uint8", (len(data),), digest=digest.of_bytes(data))
            for i, data in enumerate(tensors)
        ),
        inside=draw(st.none() | st.text(max_size=5)),
        rest=draw(st.dictionaries(st.text(max_size=5), json_values, max_size=3)),
        record=draw(
            st.dictionaries(
                # A field that ckpt reads has a type.
                st.text(max_size=5).filter(lambda k: k not in Record.__annotations__),
                json_values,
                max_size=3,
            )
        ),
        inline={digest.of_bytes(data): data for data in [own, *tensors]},
    )


@given(manifests())
def test_manifest_reads_back_as_it_was_written(manifest: Manifest) -> None:
    again = Manifest.from_bytes(manifest.to_bytes())
    assert again == manifest
    assert again.content_digest == manifest.content_digest
    assert again.objects() == {}


@given(manifests())
def test_compact_manifest_reads_back_as_it_was_written(manifest: Manifest) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_module, "PLAIN_BYTES", 0)
        data = manifest.to_bytes()
    document = json.loads(gzip.decompress(data))
    rows = json.loads(manifest.to_bytes())
    assert {**to_rows(document), "schema": 1, "inline": rows["inline"]} == rows
    assert document["schema"] == 2
    again = Manifest.from_bytes(data)
    assert again == manifest == Manifest.from_bytes(json.dumps(document).encode())
    assert again.content_digest == manifest.content_digest
    assert again.tensors_digest == manifest.tensors_digest


def many(keys: int) -> Manifest:
    """Small tensors of random bytes, and large ones, as a file of torch.save has them."""
    draw, holes, entries, inline, position = random.Random(1), [], [], {}, 0
    for at in range(keys):
        data = draw.randbytes(24)
        nbytes, name = (
            (24, digest.of_bytes(data)) if at % 4 else (8400, digest.of_bytes(b"%d" % at))
        )
        if at % 4:
            inline[name] = data
        position += 128 + len(str(at))
        holes.append(Hole(position, nbytes, name))
        position += nbytes
        key = f"model.layers.{at // 100}.part{at % 100}.weight"
        entries.append(TensorEntry(key, "float32", (nbytes // 12, 3), digest=name))
    skeleton = Skeleton(position, tuple(holes), digest.of_bytes(b""))
    return Manifest("torch-zip", "x.pt", None, skeleton, tuple(entries), inline=inline)


def test_large_manifest_of_stored_tensors_takes_little_more_than_their_digests() -> None:
    manifest = many(16_000)
    stored = tuple(e for e in manifest.entries if e.digest not in manifest.inline)
    holes = tuple(hole for hole in manifest.skeleton.holes if hole.digest not in manifest.inline)
    skeleton = replace(manifest.skeleton, holes=holes)
    manifest = replace(manifest, entries=stored, skeleton=skeleton, inline={})
    data = manifest.to_bytes()
    assert len(stored) == 4000
    assert len(data) < 1.15 * 32 * len(stored)
    assert json.loads(gzip.decompress(data))["schema"] == 2
    assert Manifest.from_bytes(data) == manifest


def test_large_manifest_takes_a_ninth(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = many(4000)
    compact = manifest.to_bytes()
    monkeypatch.setattr(manifest_module, "PLAIN_BYTES", 1 << 40)
    rows = manifest.to_bytes()
    assert len(compact) < len(rows) / 9
    assert Manifest.from_bytes(compact) == Manifest.from_bytes(rows) == manifest


def test_small_manifest_stays_readable_and_a_huge_one_is_not_deflated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert many(100).to_bytes().startswith(b'{"entries":')
    for limit in (1000, 100_000):  # of inline bytes, of all
        monkeypatch.setattr(manifest_module, "MOST_BYTES", limit)
        assert many(4000).to_bytes().startswith(b'{"entries":')


COLUMNS = json.loads(gzip.decompress(many(1000).to_bytes()))
BOMB = base64.b64encode(zlib.compress(bytes(1 << 20))).decode()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (["digests"], "0" * 63, "digests: expected digests of 64 digits each"),
        (["digests"], "", "object 7"),
        (["inline", 0, 0], 25, "inline objects have 18,000 bytes, expected 18,001"),
        (["inline", 0, 0], 1 << 40, "the limit is 67,108,864"),
        (["inline", 0, 0], -1, "expected an integer from 0"),
        (["inline", 1], BOMB, "more than 18,000 bytes when inflated"),
        (["inline", 1], COLUMNS["inline"][1][:400], "truncated"),
        (["inline", 1], "!", "base64"),
        (["skeleton", 1], 1001, "object 1001 of 1001"),
        (["skeleton", 2, 1], -1, "expected an integer from 0"),
        (["skeleton", 2, 1], (1 << 63) - 1, "a hole ends at"),
        (["skeleton", 3], [24], "skeleton: columns of 1 and 1,000 items"),
        (["skeleton", 4, 0], -1, "object -1 of 1001"),
        (["entries", 0], ["a"], "entries: columns of 1 and 1,000 items"),
        (["entries", 3, 0], 10**300, "of 1001"),
        (["entries", 3, 5], 0.5, "expected an integer"),
    ],
    ids=lambda given: str(given)[:30],
)
def test_damaged_columns_are_refused(path: list[Any], value: object, says: str) -> None:
    document = json.loads(json.dumps(COLUMNS))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(IntegrityError, match=re.escape(says)):
        Manifest.from_bytes(gzip.compress(json.dumps(document).encode()))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (gzip.compress(bytes((1 << 26) + 1), 1), "more than 67,108,864 bytes when inflated"),
        (many(1000).to_bytes()[:-1], "truncated"),
        (many(1000).to_bytes() + b"x", "others behind"),
        (gzip.compress(b"{}") * 2, "others behind"),
        (b"\x1f\x8b\x08", "truncated"),
        (b"\x1f\x8b" + bytes(40), "unknown compression method"),
        (gzip.compress(b"\xff"), "utf-8"),
        (gzip.compress(b'{"schema": 3}'), "of schema 3, this ckpt reads up to 2"),
    ],
    ids=["bomb", "cut", "more", "twice", "start", "zeros", "no text", "newer"],
)
def test_deflated_bytes_that_are_no_manifest_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(IntegrityError, match=says):
        Manifest.from_bytes(data)


def small() -> Manifest:
    data = b"abcd"
    return Manifest(
        format="safetensors",
        file_name="a.safetensors",
        file_digest=None,
        skeleton=Skeleton(12, (Hole(8, 4, digest.of_bytes(data)),), digest.of_bytes(b"12345678")),
        entries=(TensorEntry("a", "uint8", (4,), digest=digest.of_bytes(data)),),
        inline={digest.of_bytes(data): data},
    )


def test_objects_are_what_does_not_stand_inline() -> None:
    assert small().objects() == {digest.of_bytes(b"12345678"): (8, "skeleton")}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["schema"], 2),
        (["skeleton", 0], 3),
        (["skeleton", 1], "sha256:../../x"),
        (["skeleton", 2], [[8, 4]]),
        (["entries", 0, 1], "float99"),
        (["entries", 0, 3], "md5:0"),
        (["inline"], {digest.of_bytes(b"abcd"): "eJwDAAAAAAE="}),
    ],
    ids=str,
)
def test_damaged_manifest_is_refused(path: list[object], value: object) -> None:
    document = json.loads(small().to_bytes())
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(IntegrityError):
        Manifest.from_bytes(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        Manifest.from_bytes(data)
