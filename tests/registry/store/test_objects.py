import errno
import io
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import DiskError, IntegrityError
from ckpt.io import digest
from ckpt.io.rights import OWNER
from ckpt.registry.manifest import Hole, Manifest, Skeleton
from ckpt.registry.store import objects
from ckpt.registry.store.objects import ObjectStore
from ckpt.registry.store.shared import SharedStore, name_store
from ckpt.registry.store.version import VersionSource
from ckpt.tensors import Span, TensorEntry
from tests.formats.support import Memory


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


@pytest.mark.parametrize("is_store_for_group", [True, False])
def test_group_reads_what_is_in_a_folder_that_it_shares(
    tmp_path: Path, is_store_for_group: bool
) -> None:
    """A registry of one user with a store of a group, and the other way round."""
    shared, root = SharedStore(tmp_path / "store", tmp_path), tmp_path / ".ckpt"
    of_group, of_user = (shared.path, root) if is_store_for_group else (root, shared.path)
    umask = os.umask(0o077)
    try:
        for folder in (of_group, of_user):
            folder.mkdir()
        of_group.chmod(0o2770)
        shared.join()
        name_store(shared, root)
        store = ObjectStore(root, shared)
        store.put([b"abcd"], OWNER)
        store.put_manifest(manifest(), OWNER)
    finally:
        os.umask(umask)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 4  # the object and the user, the manifest and the name of the store
    for path in files:
        assert bool(path.stat().st_mode & stat.S_IRGRP) is path.is_relative_to(of_group), path


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


def test_temporaries_of_the_store_are_found(store: ObjectStore) -> None:
    store.put([b"abcd"])
    left = store.root / f"tmp/.ckpt-{'1' * 16}.tmp"
    left.write_bytes(b"")
    assert store.temporaries() == [left]


@pytest.fixture
def synced(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were synced; the store has its folder for temporaries already."""
    store.put([b"first"])
    with store.writing():
        pass
    found: list[Path] = []
    monkeypatch.setattr(objects, "sync_folder", found.append)
    return found


def test_each_folder_is_synced_once_and_before_the_manifest_has_its_name(
    store: ObjectStore, synced: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    puts = [store.put([bytes([number])]) for number in range(40)]
    assert not synced
    before: list[Path] = []

    def name_new(temporary: Path, path: Path, *, warns: bool) -> None:
        before.extend(synced)
        os.link(temporary, path)

    monkeypatch.setattr(objects, "name_new", name_new)
    put = store.put_manifest(manifest())
    folders = {path_of(store, put.digest).parent for put in puts}
    assert sorted(before) == sorted({*folders, store.root / "objects", store.root})
    named = store.root / "manifests" / put.digest.removeprefix("sha256:")[:2]
    assert set(synced[len(before) :]) == {named, named.parent, store.root}


@pytest.mark.parametrize("count", [1, 40], ids=["in turn", "side by side"])
def test_folder_whose_sync_fails_is_named_and_no_manifest_gets_its_name(
    count: int, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = [path_of(store, store.put([bytes([at])]).digest) for at in range(count)][-1]

    def failing(folder: Path) -> None:
        if folder == path.parent:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))

    monkeypatch.setattr(objects, "sync_folder", failing)
    with pytest.raises(DiskError, match=f"Input/output error: {path.parent}"):
        store.put_manifest(manifest())
    assert not list(store.manifests())


def test_name_that_another_writer_gave_is_synced_by_whoever_finds_it(
    store: ObjectStore, synced: list[Path]
) -> None:
    """It may have been killed before it could; what is said then is said of this object as well."""
    path = path_of(store, ObjectStore(store.root).put([b"abcd"]).digest)
    with store.writing():
        assert not store.put([b"abcd"]).new
        assert not synced
    assert set(synced) == {path.parent, path.parent.parent, store.root}
    synced.clear()
    with store.writing():
        assert store.keep(digest.of_bytes(b"abcd"))
    assert path.parent in synced


@pytest.mark.parametrize("nbytes", [0, 3, 5])
def test_object_of_another_size_is_refused(store: ObjectStore, nbytes: int) -> None:
    name = store.put([b"abcd"]).digest
    says = rf"of fc1\.weight has 4 bytes, {nbytes} were expected"
    with pytest.raises(IntegrityError, match=says):
        read(store, name, nbytes)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_not_a_regular_file_is_refused(
    store: ObjectStore, make: Callable[[Path], None]
) -> None:
    path = path_of(store, store.put([b"abcd"]).digest)
    path.unlink()
    make(path)
    with pytest.raises(IntegrityError, match=r"of fc1\.weight is not a regular file: "):
        read(store, digest.of_bytes(b"abcd"), 4)


def test_folder_that_became_a_file_is_named(store: ObjectStore) -> None:
    path = path_of(store, store.put([b"abcd"]).digest)
    path.unlink()
    path.parent.rmdir()
    path.parent.write_bytes(b"")
    with pytest.raises(IntegrityError, match="is not a regular file"):
        read(store, digest.of_bytes(b"abcd"), 4)


@pytest.mark.parametrize("inside", ["objects", "manifests", "tmp", "objects/{}"])
def test_link_inside_the_store_is_not_followed(store: ObjectStore, inside: str) -> None:
    path = path_of(store, store.put([b"abcd"]).digest)
    store.put_manifest(manifest())
    link = store.root / inside.format(path.parent.name)
    link.rename(store.root.parent / "elsewhere")
    link.symlink_to(store.root.parent / "elsewhere")
    with pytest.raises(IntegrityError, match="a symbolic link in a registry"):
        store.put([b"abcd"])
        list(store.objects())
    with pytest.raises(IntegrityError, match="a symbolic link in a registry"):
        list(store.objects())
        store.temporaries()


def test_fault_46_store_that_is_a_link_is_not_followed(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    store.root.symlink_to(tmp_path / "disk")
    with pytest.raises(IntegrityError, match="a symbolic link in a registry"):
        store.put([b"abcd"])
    assert not list((tmp_path / "disk").iterdir())


def manifest() -> Manifest:
    return Manifest("x", "x", None, Skeleton(0, (), digest.of_bytes(b"")), ())


def test_everything_held_is_listed_and_nothing_else(store: ObjectStore) -> None:
    stored = [store.put([b"abcd"]), store.put([b""]), store.put_manifest(manifest())]
    (store.root / "objects" / "ab").mkdir(exist_ok=True)
    (store.root / "objects" / "ab" / "notes.txt").touch()
    (store.root / "objects" / "readme").mkdir()
    (store.root / "objects" / "readme" / ("0" * 62)).touch()
    os.utime(path_of(store, stored[0].digest), (1000, 2000))
    held = {each.digest: each for each in store.objects()}
    assert {name: each.nbytes for name, each in held.items()} == {
        each.digest: each.nbytes for each in stored
    }
    assert [held[each.digest].is_manifest for each in stored] == [False, False, True]
    assert held[stored[0].digest].modified == 2000
    assert store.manifest(stored[2].digest) == manifest()


def test_object_that_is_stored_again_is_young_again(store: ObjectStore) -> None:
    path = path_of(store, store.put([b"abcd"]).digest)
    os.utime(path, (1000, 1000))
    store.put([b"abcd"])
    assert path.stat().st_mtime > 1000


def test_removed_are_those_that_were_named(store: ObjectStore) -> None:
    names = [store.put([bytes([number])]).digest for number in range(5)]
    gone = [each for each in store.objects() if each.digest in names[:3]]
    gone[0].path.unlink()
    store.remove(gone)
    assert {each.digest for each in store.objects()} == set(names[3:])
    with pytest.raises(IntegrityError, match="is missing"):
        read(store, names[1], 1)


def test_objects_are_not_collected_while_a_version_is_written(store: ObjectStore) -> None:
    store.put([b"abcd"])
    with store.writing(), store.writing():
        assert not can_collect(store)
    with store.collecting():
        assert not can_collect(store)
    assert can_collect(store)


def can_collect(store: ObjectStore) -> bool:
    """Whether another process gets the lock at once."""
    script = (
        "import fcntl, sys\n"
        "with open(sys.argv[1], 'r+b') as file:\n"
        "    try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    except BlockingIOError: sys.exit(1)\n"
    )
    return subprocess.run([sys.executable, "-c", script, store.lock]).returncode == 0


def test_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".ckpt").write_bytes(b"")
    with pytest.raises(DiskError, match=rf"^{re.escape(str(tmp_path))}/\.ckpt: File exists: "):
        ObjectStore(tmp_path / ".ckpt").put([b"abcd"])


def source(store: ObjectStore, *, tail: bytes = b"tail") -> VersionSource:
    """A file of a header, two tensors and a tail."""
    tensors = [b"a" * 6, b"b" * 4]
    for each in (*tensors, b"head" + tail):
        store.put([each])
    names = [digest.of_bytes(each) for each in tensors]
    holes = (Hole(4, 6, names[0]), Hole(10, 4, names[1]))
    skeleton = Skeleton(14 + len(tail), holes, digest.of_bytes(b"head" + tail))
    entries = tuple(
        TensorEntry(key, "uint8", (len(each),), digest=name)
        for key, each, name in zip(("fc.weight", "fc.bias"), tensors, names, strict=True)
    )
    return VersionSource("net:v1", Manifest("x", "x", None, skeleton, entries), store)


def test_missing_part_of_a_version_is_named_by_its_key(store: ObjectStore) -> None:
    made = source(store)
    for start, nbytes, what in ((4, 6, "fc.weight"), (11, 1, "fc.bias"), (0, 1, "skeleton")):
        name = digest.of_bytes({4: b"aaaaaa", 11: b"bbbb", 0: b"headtail"}[start])
        path_of(store, name).unlink()
        with pytest.raises(IntegrityError, match=rf"of net:v1: {re.escape(what)} is missing"):
            made.read(start, nbytes)


def test_part_of_a_tensor_is_verified_with_the_whole(store: ObjectStore) -> None:
    made = source(store)
    path = path_of(store, digest.of_bytes(b"aaaaaa"))
    path.chmod(0o644)
    path.write_bytes(b"aaaaax")
    assert made.read(10, 8) == b"bbbbtail"
    with pytest.raises(IntegrityError, match="is damaged"):
        made.read(4, 1)


def test_file_that_differs_from_its_version_is_refused(store: ObjectStore) -> None:
    made = source(store)
    good = made.read(0, made.size)
    made.expect_same(Memory(good))
    words = {
        0: "the bytes around the tensors",
        4: "fc.weight",
        13: "fc.bias",
        17: "the bytes around",
    }
    for position, what in words.items():
        bad = bytearray(good)
        bad[position] ^= 1
        with pytest.raises(IntegrityError, match=rf"^net:v1: the written file differs .*: {what}"):
            made.expect_same(Memory(bytes(bad)))
    for bad in (good[:-1], good + b"x"):
        with pytest.raises(IntegrityError, match=rf"{len(bad)} bytes, expected 18"):
            made.expect_same(Memory(bad))


def test_version_is_copied_and_seen_as_it_is_read(store: ObjectStore) -> None:
    made, out, seen = source(store), io.BytesIO(), []
    made.copy(2, 10, out, seen.append)
    assert out.getvalue() == b"".join(seen) == made.read(2, 10) == b"adaaaaaabb"
    made.copy(0, 2, out)
    assert out.getvalue().endswith(b"bbhe")
    assert made.mapped(0, 4) is None
    assert [(part.name, part.offset, part.nbytes) for part in made.parts] == [("x", 0, 18)]
    pieces = [(part.offset, part.nbytes, hole and hole.offset) for part, hole in
              made.pieces(Span(2, 15))]  # fmt: skip
    assert pieces == [(2, 2, None), (0, 6, 4), (0, 4, 10), (4, 3, None)]
    assert list(made.pieces(Span(18, 0))) == []


def test_parts_of_a_sharded_version_follow_each_other(store: ObjectStore) -> None:
    skeleton = Skeleton(9, (), store.put([b"abcdefghi"]).digest)
    sharded = Manifest("x", "x", None, skeleton, (), files=(("a", 4), ("b", 0), ("c", 5)))
    parts = VersionSource("net:v1", sharded, store).parts
    assert [(part.name, part.offset, part.nbytes) for part in parts] == [
        ("a", 0, 4), ("b", 4, 0), ("c", 4, 5),
    ]  # fmt: skip
