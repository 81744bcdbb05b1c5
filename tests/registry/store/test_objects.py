import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import IntegrityError
from ckpt.io import digest
from ckpt.registry.manifest import Hole, Manifest, Skeleton
from ckpt.registry.store import objects
from ckpt.registry.store.objects import ObjectStore
from ckpt.registry.store.version import VersionSource
from ckpt.tensors import Span


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / ".ckpt")


def path_of(store: ObjectStore, name: str) -> Path:
    return store.root / "objects" / name[7:9] / name[9:]


def read(store: ObjectStore, name: str, nbytes: int) -> bytes:
    return b"".join(store.stream(name, nbytes, "fc1.weight"))


def test_object_reads_back_under_the_digest_of_its_bytes(store: ObjectStore) -> None:
    stored = store.put([b"ab", b"", b"cd"])
    assert stored.digest == digest.of_bytes(b"abcd")
    assert stored.new
    assert read(store, stored.digest, 4) == b"abcd"


def test_same_bytes_are_stored_once(store: ObjectStore) -> None:
    first, second = store.put([b"abcd"]), store.put([b"ab", b"cd"])
    assert first.digest == second.digest
    assert not second.new
    assert len([p for p in store.root.rglob("*") if p.is_file()]) == 1


def test_fault_45_object_is_read_only_and_no_temporary_is_left(store: ObjectStore) -> None:
    path = path_of(store, store.put([b"abcd"]).digest)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert list((store.root / "tmp").iterdir()) == []


def test_fault_37_flipped_bit_is_found_and_named(store: ObjectStore) -> None:
    name = store.put([b"abcd"]).digest
    path_of(store, name).chmod(0o644)
    path_of(store, name).write_bytes(b"abce")
    with pytest.raises(IntegrityError, match=r"of fc1.weight is damaged: 4 bytes, digest differs"):
        read(store, name, 4)


def test_damaged_object_is_healed_by_the_same_bytes_again(store: ObjectStore) -> None:
    name = store.put([b"abcd"]).digest
    path_of(store, name).chmod(0o644)
    path_of(store, name).write_bytes(b"abc")
    assert store.put([b"abcd"]).new
    assert read(store, name, 4) == b"abcd"


def test_fault_38_object_that_became_a_link_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    name = store.put([b"abcd"]).digest
    (tmp_path / "elsewhere").write_bytes(b"abcd")
    path_of(store, name).unlink()
    path_of(store, name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError):
        read(store, name, 4)


def test_missing_object_is_named(store: ObjectStore) -> None:
    with pytest.raises(IntegrityError, match=r"of fc1\.weight is missing"):
        read(store, digest.of_bytes(b"x"), 1)


@pytest.mark.parametrize("name", ["sha256:../../x", "md5:00", "sha256:" + "A" * 64])
def test_name_that_is_no_digest_opens_no_path(store: ObjectStore, name: str) -> None:
    with pytest.raises(IntegrityError, match="not a digest"):
        read(store, name, 1)


def test_writer_that_fails_leaves_nothing(store: ObjectStore) -> None:
    def broken():
        yield b"ab"
        raise RuntimeError("the source went away")

    with pytest.raises(RuntimeError):
        store.put(broken())
    assert [p for p in store.root.rglob("*") if p.is_file()] == []


@given(st.data())
def test_version_source_is_the_file_put_together(tmp_path_factory, data: st.DataObject) -> None:
    store = ObjectStore(tmp_path_factory.mktemp("store"))
    parts = data.draw(st.lists(st.tuples(st.binary(max_size=9), st.binary(min_size=1, max_size=9))))
    tail = data.draw(st.binary(max_size=9))
    whole, own, holes, inline = b"", b"", [], {}
    for gap, tensor in parts:
        whole, own = whole + gap, own + gap
        holes.append(Hole(len(whole), len(tensor), digest.of_bytes(tensor)))
        whole += tensor
        if data.draw(st.booleans()):
            inline[digest.of_bytes(tensor)] = tensor
        else:
            store.put([tensor])
    whole, own = whole + tail, own + tail
    store.put([own])
    skeleton = Skeleton(len(whole), tuple(holes), digest.of_bytes(own))
    source = VersionSource("m:v1", Manifest("x", "x", None, skeleton, (), inline=inline), store)
    assert source.size == len(whole)
    assert source.read(0, len(whole)) == whole
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    assert source.read(start, end - start) == whole[start:end]
    pieces = list(source.pieces(Span(start, end - start)))
    assert sum(part.nbytes for part, _ in pieces) == end - start


def test_umask_is_respected_for_folders(store: ObjectStore) -> None:
    before = os.umask(0o027)
    try:
        path = path_of(store, store.put([b"abcd"]).digest)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_temporary_that_a_registry_was_begun_with_is_found(store: ObjectStore) -> None:
    """A kill before `.ckpt/.gitignore` has its name leaves one beside the store's own folders."""
    store.put([b"abcd"])
    left = [store.root / name for name in (f".ckpt-{'0' * 16}.tmp", f"tmp/.ckpt-{'1' * 16}.tmp")]
    for path in left:
        path.write_bytes(b"")
    assert store.temporaries() == left


def test_name_that_another_writer_gave_is_synced_by_whoever_finds_it(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been killed before it could; what is said then is said of this object as well."""
    synced: list[Path] = []
    monkeypatch.setattr(objects, "sync_folder", synced.append)
    path = path_of(store, store.put([b"abcd"]).digest)
    synced.clear()
    assert not store.put([b"abcd"]).new
    assert synced == [path.parent]
    synced.clear()
    store.put_manifest(Manifest("x", "x", None, Skeleton(0, (), digest.of_bytes(b"")), ()))
    assert {store.root / "objects", store.root / "manifests", store.root} <= set(synced)
