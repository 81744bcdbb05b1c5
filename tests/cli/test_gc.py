"""`ckpt gc`: what goes, what stays, and when nothing goes at all."""

import json
import os
import re
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch

from ckpt.ops.gc import gc
from ckpt.ops.register import register
from ckpt.ops.rename import to_version
from ckpt.ops.rename.to_version import add_version
from ckpt.registry.registry import Registry
from tests.cli.support import Git, Run, commit, tree, weights

AT_ONCE = ("--keep-removed", "0", "--grace", "0", "--yes")


@pytest.fixture
def three(ckpt: Run, folder: Path) -> Run:
    """`net` v1, v2 that renames it, and v3 with other weights."""
    for seed in (0, 1):
        torch.save(weights(seed), folder / "net.pt")
        assert ckpt("register", "net.pt").code == 0
        if not seed:
            assert ckpt("rename", "net:v1", "--rule", "conv=embed").code == 0
    return ckpt


def stored(folder: Path) -> dict[str, bytes]:
    return {
        name: data
        for name, data in tree(folder / ".ckpt").items()
        if name.startswith(("objects", "manifests"))
    }


def test_nothing_goes_that_a_version_needs(three: Run, folder: Path) -> None:
    before = tree(folder)
    ran = three("gc", *AT_ONCE)
    assert (ran.code, ran.out) == (0, "nothing to remove\n")
    assert tree(folder) == before


def test_removed_version_goes_after_its_time_and_not_before(three: Run, folder: Path) -> None:
    kept = stored(folder)
    assert three("rm", "net:v3", "--yes").code == 0
    ran = three("gc", "--grace", "0", "--yes")
    restorable = three("gc", "--grace", "0", "--yes", "--json").data["restorable"]
    day = restorable["until"]
    assert ran.out == (
        "nothing to remove\n"
        f"1 removed version, {restorable['bytes'] / 1e6:.1f} MB, can be restored until {day}\n"
        "to delete it now:  ckpt gc --keep-removed 0 --grace 0\n"
    )
    assert abs(datetime.fromisoformat(day) - datetime.now() - timedelta(30)) < timedelta(2)
    assert stored(folder) == kept
    shown = three("gc", "--keep-removed", "0", "--grace", "0")
    assert shown.out.startswith("would remove\n  net:v3  removed on ")
    assert "2 objects, 1 manifest" in shown.out
    assert shown.err == "to remove this, run the same command with --yes\n"
    assert stored(folder) == kept, "shown only"
    data = three("gc", *AT_ONCE, "--json").data
    assert (data["removed"], data["versions"], len(data["objects"])) == (True, ["net:v3"], 2)
    assert len(stored(folder)) == len(kept) - 3
    freed = sum(map(len, kept.values())) - sum(map(len, stored(folder).values()))
    assert restorable == {"versions": ["net:v3"], "bytes": freed, "until": day}
    assert "restored" not in three("gc").out
    assert three("verify").code == 0
    assert three("export", "net:v2", "-o", "v2.pt").code == 0
    assert three("register", "net.pt", "--json").data["version"] == "v4", "its number stays taken"


def test_what_is_shared_stays(three: Run, folder: Path) -> None:
    """v1's tensors are v2's, under other names."""
    assert three("rm", "net:v1", "--yes").code == 0
    alone = three("gc", "--json").data["restorable"]["bytes"]
    assert alone == three("du", "--json").data["unneeded"] > 0, "its manifest"
    data = three("gc", *AT_ONCE, "--json").data
    assert (data["versions"], len(data["manifests"]), data["objects"]) == (["net:v1"], 1, [])
    assert three("verify").code == 0


def test_what_went_for_good_is_not_undone(three: Run) -> None:
    assert three("alias", "prod", "net:v1").code == 0
    assert three("rm", "net:v3", "--yes").code == 0
    assert three("gc", *AT_ONCE).code == 0
    ran = three("undo")
    assert (ran.code, ran.out.splitlines()[0][:24]) == (0, "undid: alias net@prod v1")
    assert "stepped over, since it cannot be undone: rm net:v3" in ran.out
    assert ran.out.endswith("net:v3 was deleted by gc\n")
    over = three("undo", "--json").data["stepped_over"]
    assert [(each["what"], each["why"]) for each in over] == [
        ("rm net:v3", "net:v3 was deleted by gc"),
        ("register net.pt as net", "net:v3 was deleted by gc"),
    ]


def test_left_temporaries_go_and_young_objects_stay(three: Run, folder: Path) -> None:
    left = folder / ".ckpt" / "tmp" / ".ckpt-0123456789abcdef.tmp"
    beside = folder / ".ckpt-fedcba9876543210.tmp"
    other = folder / ".ckpt" / "tmp" / "notes.txt"
    for path in (left, beside, other):
        path.write_bytes(b"half")
    Registry(folder).store.put([b"x" * 5000])
    ran = three("gc", "--yes")
    assert ran.out == (
        "removed\n  2 temporary files  0 B\nkept 5.0 kB, unreferenced but under 1 h old\n"
    )
    assert (left.exists(), beside.exists(), other.exists()) == (False, False, True)
    assert three("gc", "--grace", "0", "--yes").out == "removed\n  1 object  5.0 kB\n"


def test_same_bytes_again_make_an_object_young(three: Run, folder: Path) -> None:
    store = Registry(folder).store
    store.put([b"x" * 5000])
    (held,) = [each for each in store.objects() if each.nbytes == 5000]
    os.utime(held.path, (0, 0))
    store.put([b"x" * 5000])
    assert time.time() - held.path.stat().st_mtime < 60


@pytest.mark.parametrize("damage", ["truncated", "absent", "conflict", "manifest"])
def test_nothing_goes_while_it_is_not_known_what_is_needed(
    damage: str, three: Run, folder: Path
) -> None:
    index = folder / "registry.json"
    match damage:
        case "truncated":
            index.write_bytes(index.read_bytes()[:-20])
        case "absent":
            index.unlink()
        case "conflict":
            index.write_text(f"<<<<<<< HEAD\n{index.read_text()}=======\n>>>>>>> other\n")
        case "manifest":
            path = next((folder / ".ckpt" / "manifests").glob("??/*"))
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-1])
    before = stored(folder)
    for words in (("gc",), ("gc", *AT_ONCE)):
        ran = three(*words, "--registry", str(folder))
        assert ran.code == 4, ran
        assert ran.err.startswith("error: ")
        assert "hint: " in ran.err
    assert stored(folder) == before


def test_version_that_only_the_reflog_tells_of_stays(three: Run, folder: Path) -> None:
    """As after `git checkout` of another branch, whose index does not name it."""
    index = folder / "registry.json"
    whole = index.read_bytes()
    torch.save(weights(7), folder / "other.pt")
    assert three("register", "other.pt", "--name", "net").code == 0
    other_branch = index.read_bytes()
    index.write_bytes(whole)
    assert three("gc", *AT_ONCE).out == "nothing to remove\n"
    assert three("alias", "prod", "net:v1").code == 0
    assert three("gc", *AT_ONCE).out == "nothing to remove\n"
    index.write_bytes(other_branch)
    assert three("verify").code == 0
    assert three("rm", "net:v4", "--yes").code == 0
    assert three("gc", *AT_ONCE, "--json").data["versions"] == ["net:v4"]
    index.write_bytes(whole)
    assert three("verify").code == 0


def test_discarded_version_goes_after_its_time_and_not_before(three: Run, folder: Path) -> None:
    """`register; git checkout registry.json` leaves data that nothing else names."""
    index, reflog = folder / "registry.json", folder / ".ckpt" / "reflog"
    kept, whole = stored(folder), index.read_bytes()
    torch.save(weights(7), folder / "other.pt")
    assert three("register", "other.pt", "--name", "net").code == 0
    (line,) = three("ls", "--json", "--where", "version=4").data
    index.write_bytes(whole)
    (row,) = three("fsck", "--json").data["reflog"]
    assert row["manifest"] == line["manifest"]
    listed = three("fsck").out.splitlines()
    assert f"  {row['manifest'][:15]}  kept until {row['until']}" in listed
    assert "to bring one back:  ckpt restore DIGEST" in listed
    old = time.time() - 91 * 86_400
    day = time.strftime("%Y-%m-%d", time.gmtime(old))
    text = re.sub(r'"time":"[^T]*T', f'"time":"{day}T', reflog.read_text())
    reflog.write_text(text)
    assert three("gc", "--grace", "0", "--yes").out == "nothing to remove\n", "checked out just now"
    os.utime(index, (old, old))
    assert three("gc", "--grace", "0", "--keep-reflog", "100d").out == "nothing to remove\n"
    assert three("gc", "--grace", "0", "--yes").out.startswith("removed\n  2 objects, 1 manifest  ")
    assert stored(folder) == kept
    assert three("verify").code == 0
    assert three("fsck", "--json").data["reflog"] == []


def test_discarded_version_that_fsck_lists_is_brought_back(three: Run, folder: Path) -> None:
    index = folder / "registry.json"
    whole = index.read_bytes()
    torch.save(weights(7), folder / "other.pt")
    assert three("register", "other.pt", "--name", "net").code == 0
    index.write_bytes(whole)
    (row,) = three("fsck", "--json").data["reflog"]
    assert three("restore", row["manifest"][:15]).code == 0
    assert three("export", "net:v4", "-o", "back.pt").code == 0
    assert (folder / "back.pt").read_bytes() == (folder / "other.pt").read_bytes()
    assert three("fsck", "--json").data["reflog"] == []


def test_version_of_a_branch_that_came_from_elsewhere_lacks_stays(
    three: Run, folder: Path, git: Git
) -> None:
    """What another clone's index lacks was not deleted here."""
    index = folder / "registry.json"
    (folder / ".gitignore").write_text("*.pt\n.ckpt\n")
    theirs = index.read_text().replace(json.loads(index.read_text())["write_id"], "0" * 16)
    torch.save(weights(7), folder / "other.pt")
    assert three("register", "other.pt", "--name", "net").code == 0
    commit(git)
    ours = index.read_bytes()
    git("checkout", "-q", "-b", "pulled")
    index.write_text(theirs)
    commit(git)
    assert three("alias", "prod", "net:v1").code == 0
    assert "net:v4" in three("gc", "--keep-reflog", "0", *AT_ONCE).out
    index.write_bytes(ours)
    assert three("verify").code == 0


def test_damage_that_stops_gc_is_damage_to_verify(three: Run, folder: Path, git: Git) -> None:
    """A version that only git's history has is needed by both."""
    (folder / ".gitignore").write_text("*.pt\n.ckpt\n")
    commit(git)
    before = (folder / "registry.json").read_bytes()
    torch.save(weights(7), folder / "other.pt")
    assert three("register", "other.pt", "--name", "net").code == 0
    commit(git)
    digest = three("pin", "net:v4").out.strip().removeprefix("sha256:")
    (folder / "registry.json").write_bytes(before)
    (folder / ".ckpt" / "reflog").unlink()  # as in another clone
    assert three("verify").code == three("gc", *AT_ONCE).code == three("du").code == 0
    path = folder / ".ckpt" / "manifests" / digest[:2] / digest[2:]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    for words in (("verify",), ("gc", *AT_ONCE), ("du",)):
        ran = three(*words)
        assert (ran.code, "net:v4 (in git)" in ran.out + ran.err) == (4, True), ran


def test_lineage_ends_where_a_parent_went_for_good(three: Run) -> None:
    assert three("rm", "net:v1", "--yes").code == 0
    assert three("gc", *AT_ONCE).code == 0
    ran = three("log", "net:v2")
    assert ran.code == 0
    assert ran.out.endswith("  parent: net:v1, deleted\n")
    assert len(three("log", "net:v2", "--json").data) == 1
    assert three("blame", "embed1.weight", "net:v2").code == 0
    assert three("diff", "net:v2", "net:v3").code == 0
    assert three("rename", "net:v2", "--undo").code == 0


def test_where_there_is_no_registry_nothing_is_collected(ckpt: Run, folder: Path) -> None:
    ran = ckpt("gc", "--yes")
    error = f"error: {folder}: no registry here or above\n"
    assert (ran.code, ran.err) == (2, f"{error}hint:  ckpt register FILE  creates one\n")
    assert ckpt("gc", "--grace", "soon").code == 2
    assert not list(folder.iterdir())


def test_collecting_waits_for_a_version_in_the_making(
    three: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPT_LOCK_SECONDS", "0.1")
    with Registry(folder).store.writing():
        Registry(folder).store.put([b"x" * 5000])
        ran = three("gc", *AT_ONCE)
    assert (ran.code, "locked for 0.1 s by process" in ran.err) == (6, True)
    assert three("gc", *AT_ONCE).code == 0


def test_nothing_is_restored_while_gc_decides_what_is_needed(
    three: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPT_LOCK_SECONDS", "0.1")
    assert three("rm", "net:v3", "--yes").code == 0
    with Registry(folder).store.collecting():
        ran = three("restore", "net:v3")
    assert (ran.code, "locked for 0.1 s by process" in ran.err) == (6, True)
    assert three("restore", "net:v3").code == 0


def test_version_removed_for_good_meanwhile_is_not_renamed(three: Run, folder: Path) -> None:
    """Between opening the parent and writing, it may have gone."""

    def collected_first(*words, **named):
        assert three("rm", "net:v3", "--yes").code == 0
        gc(registry=Registry(folder), keep_removed=timedelta(), grace=timedelta())
        return add_version(*words, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_version, "add_version", collected_first)
        ran = three("rename", "net:v3", "--rule", "conv=embed")
    assert (ran.code, "v3" in ran.err) == (2, True)
    assert three("verify").code == 0


def test_register_again_after_all_has_gone(three: Run, folder: Path) -> None:
    assert three("rm", "net:v1", "net:v2", "net:v3", "--yes").code == 0
    assert three("gc", *AT_ONCE).code == 0
    assert not stored(folder)
    added = register(folder / "net.pt", registry=Registry(folder))
    assert added.version.ref == "net:v4"
    assert three("verify").code == 0
