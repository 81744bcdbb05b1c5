import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import IntegrityError
from ckpt.io import digest
from ckpt.registry.manifest import Hole, Manifest, Skeleton
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
                st.text(max_size=5).filter(lambda k: k != "definition"), json_values, max_size=3
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
