"""The index made of the manifests alone, or of these and what the reflog tells."""

from dataclasses import replace
from typing import Any

import pytest

from ckpt.io import digest
from ckpt.registry.history.rebuild import model_of, rebuilt
from ckpt.registry.index import Index
from ckpt.registry.manifest import Manifest, Skeleton
from ckpt.tensors import TensorEntry
from tests.registry.test_index import version


def manifest(content: str, /, nbytes: int = 8, **record: Any) -> Manifest:
    """One of a file that holds one tensor, named by its content."""
    entry = TensorEntry("w", "uint8", (nbytes,), digest=digest.of_bytes(content.encode()))
    skeleton = Skeleton(nbytes, (), digest.of_bytes(b"skeleton"))
    return Manifest("x", "x.pt", f"sha256:{'f' * 64}", skeleton, (entry,), record=record)


def named(*manifests: Manifest) -> dict[str, Manifest]:
    return {digest.of_bytes(each.to_bytes()): each for each in manifests}


def name(of: Manifest) -> str:
    (found,) = named(of)
    return found


def parent(manifest: str) -> dict[str, str]:
    return {"version": "net:v1", "manifest": manifest}


def time(day: int) -> str:
    return f"2026-01-0{day}T00:00:00+00:00"


def test_version_has_what_its_manifest_says() -> None:
    one = manifest(
        "a", model="net", created="2026-01-01T00:00:00+00:00", message="m", made_by="train",
        metrics={"loss": 0.5, "epochs": 3},
    )  # fmt: skip
    (made,) = rebuilt(Index(), named(one)).added
    assert (made.ref, made.number, made.manifest, made.also) == ("net:v1", 1, name(one), ())
    assert (made.content, made.tensors) == (one.content_digest, one.tensors_digest)
    assert (made.file, made.size, made.keys, made.new_bytes) == (one.file_digest, 8, 1, 16)
    assert (made.made_by, made.created, made.message) == (
        "train", "2026-01-01T00:00:00+00:00", "m",
    )  # fmt: skip
    assert made.metrics == {"loss": 0.5, "epochs": 3}


@pytest.mark.parametrize("record", [{}, {"model": "../x", "training": {}}, {"model": "x" * 129}])
def test_record_that_says_little_is_no_obstacle(record: dict[str, Any]) -> None:
    (made,) = rebuilt(Index(), named(manifest("a", **record))).added
    assert made.ref == "recovered:v1"
    assert model_of(manifest("a", **record)) == "recovered"
    assert (made.made_by, made.created, made.message, made.metrics) == ("found by fsck", "", "", {})


def test_parents_come_before_what_was_made_of_them_and_else_the_older_first() -> None:
    times = [time(day) for day in range(1, 6)]
    late = manifest("late", model="net", created=times[3])
    child = manifest("child", model="net", created=times[0], parent=parent(name(late)))
    grandchild = manifest("grandchild", model="net", created=times[1], parent=parent(name(child)))
    early = manifest("early", model="net", created=times[2])
    orphan = manifest("orphan", model="net", created=times[4], parent=parent(digest.of_bytes(b"")))
    found = named(grandchild, orphan, child, late, early)
    added = rebuilt(Index(), found).added
    order = [early, late, child, grandchild, orphan]
    assert [(each.number, each.manifest) for each in added] == [
        (number, name(each)) for number, each in enumerate(order, start=1)
    ]
    assert rebuilt(Index(), dict(reversed(found.items()))).added == added


def test_same_bytes_are_one_version_with_all_manifests() -> None:
    first, *others = (
        manifest("a", model="net", created=time(day), message=str(day)) for day in (1, 2, 3)
    )
    elsewhere = manifest("a", model="other")
    added = rebuilt(Index(), named(*others, first, elsewhere)).added
    assert {each.ref for each in added} == {"net:v1", "other:v1"}
    (net,) = (each for each in added if each.model == "net")
    assert (net.manifest, net.also) == (name(first), tuple(sorted(map(name, others))))


def test_store_grew_by_what_no_version_before_had() -> None:
    one = manifest("a", model="net", created=time(1))
    two = manifest("b", 9, model="net", created=time(2))
    same = manifest(
        "a",
        model="net",
        created=time(3),
        definition={"digest": digest.of_bytes(b"class"), "nbytes": 5},
    )
    renamed = manifest("b", 9, model="other", created=time(4))
    added = rebuilt(Index(), named(one, two, same, renamed)).added
    assert [(each.ref, each.new_bytes) for each in added] == [
        ("net:v1", 16), ("net:v2", 9), ("other:v1", 0),
    ]  # fmt: skip


def test_known_versions_keep_their_numbers_and_unread_ones_are_said() -> None:
    known = manifest("a", model="mnist-cnn")
    twin = manifest("a", model="mnist-cnn", message="again")
    new = manifest("b", model="mnist-cnn")
    index = Index().with_version(version(1)).with_version(version(2))
    index = index.with_model(index.model(None).without(2, at="2026-01-01T00:00:00+00:00"))
    result = rebuilt(index, named(new))
    assert [each.label for each in result.added] == ["v3"]
    assert [each.label for each in result.unread] == ["v1"], "a removed one is not missed"
    assert sorted(result.index.model(None).versions) == [1, 3]

    line = replace(version(1), manifest=name(known), content=known.content_digest)
    told = Index().with_version(line)
    result = rebuilt(told, named(known, twin, new))
    assert [each.manifest for each in result.added] == [name(new)]
    assert result.added[0].new_bytes == 8
    assert result.unread == ()
    # The manifest that is named cannot be read; another of the same bytes is a version.
    result = rebuilt(told, named(twin))
    assert [each.manifest for each in result.added] == [name(twin)]
    assert [each.manifest for each in result.unread] == [name(known)]
