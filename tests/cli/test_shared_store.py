"""Objects in a folder outside of git, which several registries share."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from ckpt.registry.store import objects
from ckpt.registry.store.listing import StoredObject
from ckpt.registry.store.objects import ObjectStore
from tests.cli.support import Git, Run, commit, save

GC = ("gc", "--grace", "0", "--keep-removed", "0", "--yes")


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outside") / "store"


@pytest.fixture
def sharing(ckpt: Run, git: Git, folder: Path, store: Path) -> Run:
    """`net:v1` and `net:v2`, whose objects are in the store, committed."""
    (folder / ".gitignore").write_text("*.pt\nclone/\n")
    for seed in (1, 2):
        save(folder / "net.pt", seed)
        ckpt("register", "net.pt")
    ran = ckpt("git-driver", "install", "--store", str(store))
    assert ran.code == 0, ran.err
    assert f"objects are in {store}; 2 objects moved there, 16.0 kB; commit .ckpt/store" in ran.out
    commit(git)
    return ckpt


def digests(place: Path) -> set[str]:
    return {path.parent.name + path.name for path in place.glob("objects/??/*")}


def clone_of(git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    git("clone", "-q", ".", "clone")
    monkeypatch.chdir(folder / "clone")
    return folder / "clone"


def test_objects_move_out_of_git(sharing: Run, folder: Path, git: Git, store: Path) -> None:
    assert len(digests(store)) == 2
    assert not digests(folder / ".ckpt")
    assert "objects/" not in git("ls-files", ".ckpt").stdout
    sharing("export", "v2", "-o", "again.pt")
    assert (folder / "again.pt").read_bytes() == (folder / "net.pt").read_bytes()
    save(folder / "net.pt", 3)
    assert "registered net:v3" in sharing("register", "net.pt").out
    assert len(digests(store)) == 3
    assert not digests(folder / ".ckpt")
    assert sharing("verify").code == 0
    again = sharing("git-driver", "install", "--store", str(store), "--json").data["store"]
    assert again == {"path": str(store), "moved": 0, "nbytes": 0, "damaged": 0}


def test_objects_are_on_the_disk_under_their_names_before_they_leave_their_old_place(
    ckpt: Run, git: Git, folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(12):  # in more folders than are synced in turn
        save(folder / "net.pt", seed)
        ckpt("register", "net.pt")
    commit(git)
    synced: set[Path] = set()
    real_sync, real_remove = objects.sync_folder, ObjectStore.remove

    def sync_folder(path: Path) -> None:
        real_sync(path)
        synced.add(path)

    def remove(own: ObjectStore, removed: Iterable[StoredObject]) -> None:
        moved = {path.parent for path in store.glob("objects/??/*")}
        assert len(moved) > 8
        assert {*moved, store / "objects", store} <= synced
        real_remove(own, removed)

    monkeypatch.setattr(objects, "sync_folder", sync_folder)
    monkeypatch.setattr(ObjectStore, "remove", remove)
    ran = ckpt("git-driver", "install", "--store", str(store))
    assert (ran.code, "12 objects moved there" in ran.out) == (0, True), ran.err


def test_clone_uses_the_store_once_it_is_told_to(
    sharing: Run, folder: Path, git: Git, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = clone_of(git, folder, monkeypatch)
    for words in (["ls"], ["show", "v1"], ["diff", "v1", "v2"], ["fsck"]):
        assert sharing(*words).code == 0, words
    save(clone / "new.pt", 5)
    for words in (["export", "v1", "-o", "x.pt"], ["register", "new.pt"], ["verify"], [*GC]):
        ran = sharing(*words)
        assert ran.code == 2, words
        assert f"to use it:  ckpt git-driver install --store {store}" in ran.err
    assert sharing("git-driver", "install", "--store", str(store)).code == 0
    assert sharing("export", "v1", "-o", "x.pt").code == 0
    assert sharing("register", "new.pt", "--name", "net").code == 0
    assert len(digests(store)) == 3


def test_gc_keeps_what_another_registry_needs(
    sharing: Run, folder: Path, git: Git, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone_of(git, folder, monkeypatch)
    sharing("git-driver", "install", "--store", str(store))
    save(Path("net.pt"), 3)
    sharing("register", "net.pt")
    monkeypatch.chdir(folder)
    before = digests(store)
    assert len(before) == 3
    sharing(*GC)
    assert digests(store) == before
    monkeypatch.chdir(folder / "clone")
    sharing("rm", "v3", "--yes")
    sharing(*GC)
    assert len(digests(store)) == 2
    assert sharing("verify").code == 0


def test_gc_keeps_what_only_the_reflog_of_another_registry_names(
    sharing: Run, folder: Path, git: Git, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = clone_of(git, folder, monkeypatch)
    sharing("git-driver", "install", "--store", str(store))
    before = (clone / "registry.json").read_bytes()
    save(Path("net.pt"), 3)
    lost = sharing("register", "net.pt", "--json").data["manifest"]
    (clone / "registry.json").write_bytes(before)
    forgetful = (*GC, "--keep-reflog", "0")
    monkeypatch.chdir(folder)
    sharing(*forgetful)
    assert len(digests(store)) == 3
    monkeypatch.chdir(clone)
    assert sharing("restore", lost).out == "restored: net:v3\n"
    (clone / "registry.json").write_bytes(before)
    sharing(*forgetful)
    assert len(digests(store)) == 2
    assert sharing("restore", lost).code == 2
    assert sharing("verify").code == 0


def test_gc_keeps_what_another_branch_needs(
    sharing: Run, folder: Path, git: Git, store: Path
) -> None:
    git("checkout", "-qb", "other")
    save(folder / "net.pt", 3)
    sharing("register", "net.pt")
    commit(git)
    git("checkout", "-q", "main")
    assert len(sharing("ls", "--json").data) == 2
    sharing(*GC)
    assert len(digests(store)) == 3
    git("checkout", "-q", "other")
    assert sharing("verify").code == 0
    assert sharing("export", "v3", "-o", "x.pt").code == 0


def test_gc_sees_the_branches_of_a_registry_below_the_top(
    ckpt: Run, git: Git, folder: Path, store: Path
) -> None:
    (folder / "sub").mkdir()
    words = ("--registry", "sub")
    ckpt("git-driver", "install", "--store", str(store), *words)
    save(folder / "net.pt", 1)
    ckpt("register", "net.pt", *words)
    git("add", "sub")
    git("commit", "-qm", "x")
    git("tag", "-am", "x", "first")
    ckpt("rm", "v1", "--yes", *words)
    git("rm", "-rqf", "sub/.ckpt/manifests")
    ckpt(*GC, *words)
    assert len(digests(store)) == 1


def test_gc_refuses_if_git_does_not_tell_the_branches(
    sharing: Run, folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".git" / "HEAD").write_text("broken")
    before = digests(store)
    ran = sharing(*GC)
    assert ran.code != 0
    assert "git says" in ran.err
    assert digests(store) == before


@pytest.mark.parametrize("harm", ["gone", "damaged", "manifest"])
def test_gc_refuses_if_a_registry_cannot_be_read(
    sharing: Run, folder: Path, git: Git, store: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    clone = clone_of(git, folder, monkeypatch)
    sharing("git-driver", "install", "--store", str(store))
    monkeypatch.chdir(folder)
    if harm == "gone":
        shutil.rmtree(clone)
    elif harm == "damaged":
        (clone / "registry.json").write_text("{")
    else:
        (manifest, *_) = clone.glob(".ckpt/manifests/??/*")
        manifest.chmod(0o644)
        manifest.write_text("{}")
    before = digests(store)
    ran = sharing(*GC)
    assert ran.code == 4
    assert f"{clone} uses it too, and cannot be read" in ran.err
    assert "nothing was removed; if that registry is gone for good, remove " in ran.err
    assert digests(store) == before
    user = Path(ran.err.rpartition("remove ")[2].strip())
    assert user.read_text() == f"{clone}\n"
    user.unlink()
    assert sharing(*GC).code == 0
    assert digests(store) == before  # the first registry needs them all


def test_two_registries_store_one_object_once(
    sharing: Run, folder: Path, git: Git, store: Path
) -> None:
    (folder / "second").mkdir()
    words = ("--registry", "second")
    assert sharing("git-driver", "install", "--store", str(store), *words).code == 0
    added = sharing("register", "net.pt", "--json", *words).data["new_bytes"]
    (manifest,) = (folder / "second").glob(".ckpt/manifests/??/*")
    assert added == manifest.stat().st_size
    assert len(digests(store)) == 2
    assert sharing("du", "--json").data["unneeded"] == 0
    save(folder / "net.pt", 9)
    sharing("register", "net.pt", *words)
    assert sharing("verify", "--json").data["objects"] == 2


def test_place_of_the_store_can_differ_from_machine_to_machine(
    sharing: Run, folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = store.with_name("mounted")
    store.rename(other)
    ran = sharing("export", "v1", "-o", "x.pt")
    assert ran.code == 2
    assert f"its objects are in {store}, which is not there" in ran.err
    ran = sharing("git-driver", "install", "--store", str(other))
    assert f"export CKPT_STORE={other}" in ran.err
    monkeypatch.setenv("CKPT_STORE", str(other))
    assert sharing("git-driver", "install", "--store", str(other)).code == 0
    assert sharing("export", "v1", "-o", "x.pt").code == 0
    assert (folder / ".ckpt" / "store").read_text() == f"{store}\n"


def test_objects_that_git_brings_back_are_read_and_moved(
    sharing: Run, folder: Path, store: Path
) -> None:
    for path in store.glob("objects/??/*"):
        back = folder / ".ckpt" / path.relative_to(store)
        back.parent.mkdir(parents=True, exist_ok=True)
        path.rename(back)
    assert sharing("verify").code == 0
    assert sharing("export", "v1", "-o", "x.pt").code == 0
    sharing("git-driver", "install", "--store", str(store))
    assert len(digests(store)) == 2
    assert not digests(folder / ".ckpt")


def test_damaged_object_stays_where_it_is(ckpt: Run, git: Git, folder: Path, store: Path) -> None:
    for seed in (1, 2):
        save(folder / "net.pt", seed)
        ckpt("register", "net.pt")
    (bad, _) = sorted(folder.glob(".ckpt/objects/??/*"))
    bad.chmod(0o644)
    bad.write_bytes(b"x")
    ran = ckpt("git-driver", "install", "--store", str(store))
    assert "1 object damaged, and not moved; see  ckpt verify" in ran.out
    assert bad.exists()
    assert len(digests(store)) == 1


@pytest.mark.parametrize("place", ["inside", "full", "both", "file"])
def test_unfit_place_is_refused(ckpt: Run, git: Git, folder: Path, store: Path, place: str) -> None:
    save(folder / "net.pt", 1)
    ckpt("register", "net.pt")
    full = store.with_name("full")
    full.mkdir()
    (full / "x").write_text("x")
    words, says = {
        "inside": (["--store", "objects"], "where git would copy it"),
        "full": (["--store", str(full)], "holds other things than a store of objects"),
        "both": (["--store", str(store), "--lfs"], "two places for the same objects"),
        "file": (["--store", str(full / "x")], "holds other things than a store of objects"),
    }[place]
    ran = ckpt("git-driver", "install", *words)
    assert ran.code == 2
    assert says in ran.err
    assert not (folder / ".ckpt" / "store").exists()
    assert sorted(os.listdir(full)) == ["x"]


def test_hostile_clone_opens_no_path_that_nobody_named(
    ckpt: Run, folder: Path, store: Path
) -> None:
    save(folder / "net.pt", 1)
    ckpt("register", "net.pt")
    victim = store.with_name("victim")
    (victim / "users").mkdir(parents=True)
    (folder / ".ckpt" / "store").write_text(f"{victim}\n")
    save(folder / "net.pt", 2)
    assert ckpt("register", "net.pt").code == 2
    assert [path.name for path in victim.rglob("*")] == ["users"]
    (folder / ".ckpt" / "store").write_text("../elsewhere\n")
    ran = ckpt("register", "net.pt")
    assert ran.code == 4
    assert "is not an absolute path" in ran.err


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "long", "nul"])
def test_fault_46_name_of_the_store_is_a_plain_short_file(
    ckpt: Run, folder: Path, store: Path, kind: str
) -> None:
    save(folder / "net.pt", 1)
    ckpt("register", "net.pt")
    place = folder / ".ckpt" / "store"
    if kind == "link":
        (folder / "other").write_text(f"{store}\n")
        place.symlink_to("../other")
    elif kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.write_bytes(b"/" + b"x" * 5000 if kind == "long" else b"/a\0b\n")
    ran = ckpt("export", "v1", "-o", "x.pt")
    assert ran.code in (4, 5), ran.err
    assert ".ckpt/store: " in ran.err
    assert not (folder / "x.pt").exists()
