"""`ckpt copy`: a version in another registry, with its digest, its words and its lineage."""

import json
from pathlib import Path

import pytest

from ckpt.registry.index_file import IndexFile
from tests.cli.support import Run, register_seeds, tree
from tests.cli.test_repair import Damage, damages


@pytest.fixture
def net(ckpt: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`net` v1 with a note, and v2, a rename of it; an empty folder `there`."""
    monkeypatch.setenv("CKPT_AUTHOR", "Ann")
    register_seeds(ckpt, folder, 1)
    assert ckpt("note", "v1", "-m", "as shipped").code == 0
    assert ckpt("rename", "v1", "--rule", "w=x").code == 0
    (folder / "there").mkdir()
    return ckpt


def there(net: Run, *words: str) -> Run:
    return net(*words, "--registry", "there")


def test_copy_has_the_same_bytes_digest_words_and_origin(net: Run, folder: Path) -> None:
    before = tree(folder / ".ckpt"), (folder / "registry.json").read_bytes()
    ran = net("copy", "v1", "there")
    pinned = net("pin", "v1").out.strip()
    assert ran.out == f"copied net:v1 to there as net:v1  {pinned[:15]}, 9.5 kB new\n"
    assert ran.err == f"created a registry: {folder}/there/registry.json\n"
    assert (tree(folder / ".ckpt"), (folder / "registry.json").read_bytes()) == before
    assert there(net, "verify").code == 0
    assert there(net, "export", pinned, "-o", "again.pt").code == 0
    assert (folder / "again.pt").read_bytes() == (folder / "net.pt").read_bytes()
    note, copied = there(net, "show", "v1", "--json").data["history"]
    assert (note["message"], copied["did"]) == ("as shipped", "copy")
    identity = json.loads(before[1])["id"]
    assert copied["origin"] == {"registry": identity, "version": "net:v1", "manifest": pinned}
    assert copied["by"]["author"] == "Ann"


def test_copy_was_never_restored_where_it_is(net: Run) -> None:
    assert net("rm", "v1", "--yes").code == net("restore", "v1").code == 0
    assert net("copy", "v1", "there").code == 0
    history = there(net, "show", "v1", "--json").data["history"]
    assert [each["did"] for each in history] == ["note", "copy"]


def test_copy_again_answers_the_version_that_is_there(net: Run, folder: Path) -> None:
    assert net("copy", "v1", "there").code == 0
    before = tree(folder / "there")
    again = net("copy", "v1", "there", "--json")
    assert (again.code, again.data["new"], again.data["version"]) == (0, False, "v1")
    assert "there has net:v1" in net("copy", "v1", "there").out
    assert net("copy", "v1", ".").out.endswith("the same bytes, nothing copied\n")
    assert tree(folder / "there") == before


def test_lineage_ends_where_the_registry_does_and_is_whole_once_the_parent_is_there(
    net: Run, folder: Path
) -> None:
    assert net("copy", "v2", "there", "--name", "other").code == 0
    assert there(net, "log", "v1").out.endswith("\n  parent: net:v1, not in this registry\n")
    copied = net("copy", "v1", "there", "--json").data
    (manifest,) = (folder / "there/.ckpt").glob(f"manifests/??/{copied['manifest'][9:]}")
    assert copied["new_bytes"] == manifest.stat().st_size, "the tensor is there"
    assert [step["model"] for step in there(net, "log", "other:v1", "--json").data] == [
        "other",
        "net",
    ]
    assert there(net, "gc", "--grace", "0", "--yes").code == 0
    assert there(net, "verify").code == 0
    (folder / "there/registry.json").unlink()
    assert there(net, "fsck", "--rebuild-index", "--yes").code == 0
    assert there(net, "show", "net:v1", "--json").data["history"][-1]["did"] == "copy"


def test_digest_of_a_copy_in_another_model_stays_a_ref(net: Run) -> None:
    assert net("copy", "v1", ".", "--name", "other").code == 0
    digest = net("pin", "net:v1").out.strip()
    assert net("pin", "other:v1").out.strip() == digest
    assert net("show", digest).code == 0


@damages
def test_damaged_version_is_not_copied(net: Run, folder: Path, damage: Damage) -> None:
    (path,) = folder.glob(".ckpt/objects/*/*")
    damage(path)
    ran = net("copy", "v1", "there")
    assert (ran.code, "net:v1: w" in ran.err) == (4, True), ran.err
    assert there(net, "ls", "--json").data == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("v9", "there"), "net has no v9"),
        (("v1", "nowhere"), "nowhere: no such folder"),
        (("v1", "there", "--name", "a b"), "not a valid name"),
        (("net.pt", "there"), "net.pt is a file, not a version in the registry"),
    ],
)
def test_bad_words_create_nothing(net: Run, folder: Path, words, says) -> None:
    ran = net("copy", *words)
    assert (ran.code, says in ran.err) == (2, True), ran.err
    assert not any((folder / "there").iterdir())


def test_first_copy_that_was_interrupted_before_the_index_can_be_done_again(
    net: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: IndexFile, identity: str = "") -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(IndexFile, "create", stopped)
        assert net("copy", "v1", "there").code == 130
    ran = net("copy", "v1", "there")
    assert (ran.code, ", 9.5 kB new" in ran.out) == (0, False), "the object is there"
    assert there(net, "verify").code == 0
