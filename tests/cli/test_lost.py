"""Versions that a merge lost: named before anything is deleted, kept, and recovered."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import Git, Run, commit, register_seeds, save

GC = ("gc", "--grace", "0", "--keep-removed", "0")


def versions(folder: Path) -> dict[str, dict[str, Any]]:
    document = json.loads((folder / "registry.json").read_text())
    return dict(document["models"]["net"]["versions"])


@pytest.fixture
def lost(shared: Run, git: Git, folder: Path) -> dict[str, Any]:
    """The line of a version that a merge threw away, since somebody took their own side."""
    git("config", "--remove-section", "merge.ckpt")
    git("checkout", "-q", "other")
    register_seeds(shared, folder, 3)
    line = versions(folder)["v3"]
    commit(git)
    git("checkout", "-q", "main")
    register_seeds(shared, folder, 4)
    commit(git)
    (folder / ".ckpt" / "reflog").unlink()  # as of another machine
    git("merge", "-q", "other", "-m", "m", code=1)
    git("checkout", "--ours", "registry.json")
    commit(git)
    git("branch", "-D", "other")
    assert [each["message"] for each in versions(folder).values()] == ["", "", "seed 4"]
    return line


def test_version_that_a_merge_lost_is_named_and_kept(shared: Run, lost: dict[str, Any]) -> None:
    name = f"net:v3  {lost['manifest'][:15]}"
    for words in (("fsck",), ("verify",), GC, (*GC, "--yes"), ("verify",)):
        ran = shared(*words)
        assert (ran.code, name in ran.out) == (0, True), ran
        assert "ckpt fsck --recover DIGEST" in ran.out
    for words in (("fsck", "--json"), ("verify", "--json"), (*GC, "--json")):
        (row,) = shared(*words).data["lost"]
        assert (row["version"], row["manifest"]) == ("net:v3", lost["manifest"])


def test_version_that_a_merge_lost_is_recovered(
    shared: Run, folder: Path, lost: dict[str, Any]
) -> None:
    ran = shared("fsck", "--recover", lost["manifest"][:20])
    assert (ran.code, ran.out) == (0, "recovered net:v4, which was v3\n")
    line = versions(folder)["v4"]
    assert line == {**lost, "renumbered": "v3", "restored": line["restored"]}
    assert shared("show", "net:v4", "--json").data["history"][-1]["did"] == "restore"
    assert shared("export", "net:v4", "-o", "back.pt").code == 0
    ran = shared("fsck", "--recover", lost["manifest"][:20])
    assert (ran.code, "names no version that only git has" in ran.err) == (2, True)
    assert "history" not in shared("verify").out


def test_free_number_is_given_back(shared: Run, git: Git, folder: Path) -> None:
    register_seeds(shared, folder, 3)
    commit(git)
    text = (folder / "registry.json").read_text()
    document = json.loads(text)
    line = document["models"]["net"]["versions"].pop("v3")
    (folder / "registry.json").write_text(json.dumps(document))
    commit(git)
    (folder / ".ckpt" / "reflog").unlink()
    assert shared("fsck", "--recover", line["manifest"]).out == "recovered net:v3\n"
    assert versions(folder)["v3"] == {**line, "restored": versions(folder)["v3"]["restored"]}


def test_lost_version_whose_bytes_were_registered_again_is_not_added_twice(
    shared: Run, folder: Path, lost: dict[str, Any]
) -> None:
    save(folder / "net.pt", 3)
    assert shared("register", "net.pt", "--json").data["version"] == "v4"
    ran = shared("fsck", "--recover", lost["manifest"][:20])
    assert (ran.code, ran.out) == (0, "recovered as net:v4, which has the same bytes\n")
    assert list(versions(folder)) == ["v1", "v2", "v3", "v4"]
    assert versions(folder)["v4"]["also"] == [lost["manifest"]]
    assert shared("fsck", "--json").data["lost"] == []
    assert shared(*GC, "--yes").code == shared("verify").code == 0
    assert (folder / f".ckpt/manifests/{lost['manifest'][7:9]}/{lost['manifest'][9:]}").exists()


def test_version_of_another_branch_is_named_and_a_removed_one_is_not(
    shared: Run, git: Git, folder: Path
) -> None:
    register_seeds(shared, folder, 3)
    commit(git)
    assert shared("rm", "net:v3", "--yes").code == 0
    commit(git)
    assert shared(*GC, "--yes").code == 0
    assert "history" not in shared("fsck").out
    commit(git)
    git("checkout", "-q", "other")
    register_seeds(shared, folder, 5)
    commit(git)
    git("checkout", "-q", "main")
    git("checkout", "-q", "other", "--", ".ckpt")
    (row,) = shared("fsck", "--json").data["lost"]
    assert row["version"] == "net:v3"
