"""FAULTS 46: whose registry is used, and that gc removes nothing from another one's store."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.support import tree
from tests.faults.stage import Ran, save, within

GC = ("gc", "--grace", "0", "--keep-removed", "0", "--yes")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="not root")


def registry(folder: Path, *, seed: int = 1) -> Path:
    folder.mkdir()
    save(folder / "net.safetensors", seed)
    assert within(folder, "register", "net.safetensors").code == 0
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return registry(tmp_path / "own")


def identity(folder: Path) -> str | None:
    return json.loads((folder / "registry.json").read_text()).get("id")


def stored(folder: Path) -> str:
    return (folder / ".ckpt" / "id").read_text().strip()


def forget(folder: Path) -> None:
    """Make it a registry of an earlier ckpt."""
    document = json.loads((folder / "registry.json").read_text())
    del document["id"]
    (folder / "registry.json").write_text(json.dumps(document))


def test_fault_46_registry_above_is_named(own: Path) -> None:
    (own / "inner").mkdir()
    (own / "inner" / "a.safetensors").write_bytes((own / "net.safetensors").read_bytes())
    ran = within(own / "inner", "ls")
    assert (ran.code, ran.err) == (0, f"registry: {own}\n")
    assert within(own / "inner", "ls", "-q").err == ""
    assert within(own / "inner", "ls", "--registry", "..").err == ""
    assert within(own / "inner", "show", "a.safetensors").err == "", "it is not used"
    assert within(own, "ls").err == ""


@as_root
@pytest.mark.parametrize("place", ["registry.json", ".ckpt"])
@pytest.mark.parametrize("words", [("ls",), ("register", "new.safetensors"), GC])
def test_fault_46_registry_of_another_user_is_refused(
    own: Path, place: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    (own / "inner").mkdir()
    for folder in (own, own / "inner"):
        save(folder / "new.safetensors", 2)
    os.chown(own / place, 1234, 1234)
    before = tree(own)
    for folder in (own, own / "inner"):
        ran = within(folder, *words)
        assert (ran.code, f"{own / place}: belongs to another user (uid 1234)" in ran.err) == (
            2,
            True,
        )
        assert f"CKPT_SAFE_REGISTRIES={own}" in ran.err
        assert tree(own) == before
    assert within(own / "inner", "show", "new.safetensors").code == 0, "a file needs no registry"
    assert within(own / "inner", "ls", "--registry", "..").code == 0
    monkeypatch.setenv("CKPT_SAFE_REGISTRIES", f"/nowhere:{own}")
    assert within(own / "inner", *words).code == 0


def test_fault_46_gc_refuses_the_store_of_another_registry(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = registry(tmp_path / "other", seed=2)
    shutil.rmtree(other / ".ckpt")
    (other / ".ckpt").symlink_to(own / ".ckpt")
    before = tree(own)
    assert within(other, *GC).code == 4, "a link"
    monkeypatch.setenv("CKPT_SAFE_REGISTRIES", str(other))
    for words in (GC, ("gc",)):
        ran = within(other, *words)
        assert (ran.code, "the store of another registry" in ran.err) == (4, True), ran
        assert tree(own) == before
    forget(other)
    assert within(other, *GC).code == 4, "nor one without identity"
    assert tree(own) == before


def test_store_elsewhere_is_followed_if_the_registry_is_listed(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own / ".ckpt").rename(tmp_path / "disk")
    (own / ".ckpt").symlink_to(tmp_path / "disk")
    save(own / "new.safetensors", 2)
    assert within(own, "register", "new.safetensors", "--name", "net").code == 4
    monkeypatch.setenv("CKPT_SAFE_REGISTRIES", str(own))
    assert within(own, "register", "new.safetensors", "--name", "net").code == 0
    assert within(own, "verify").code == 0
    assert within(own, *GC).code == 0


def test_registry_and_its_store_have_one_identity(own: Path) -> None:
    assert identity(own) == stored(own)
    assert within(own, "alias", "prod", "v1").code == 0
    assert identity(own) == stored(own)


@pytest.mark.parametrize("clone", ["no store", "empty store", "store without id"])
def test_clone_gives_its_store_the_identity_of_the_index(own: Path, clone: str) -> None:
    first = identity(own)
    if clone == "store without id":
        (own / ".ckpt" / "id").unlink()
    else:
        shutil.rmtree(own / ".ckpt")
    if clone == "empty store":
        (own / ".ckpt").mkdir()
    assert within(own, "ls").code == 0
    assert within(own, "alias", "prod", "v1").code == 0
    assert (identity(own), stored(own)) == (first, first)
    assert within(own, "verify", "--repair", "net.safetensors").code in (0, 4)
    if clone == "store without id":
        assert within(own, *GC).code == 0


def test_old_registry_gets_an_identity_at_its_next_write(own: Path) -> None:
    forget(own)
    (own / ".ckpt" / "id").unlink()
    assert within(own, *GC).code == 0
    assert identity(own) is None
    assert within(own, "tag", "v1", "nice").code == 0
    assert identity(own) == stored(own) != ""
    assert within(own, *GC).code == 0


def test_index_without_identity_takes_that_of_its_store(own: Path) -> None:
    first = identity(own)
    forget(own)
    assert within(own, "tag", "v1", "nice").code == 0
    assert identity(own) == stored(own) == first


def test_rebuilt_index_has_the_identity_of_its_store(own: Path) -> None:
    first = identity(own)
    (own / "registry.json").unlink()
    assert within(own, "fsck", "--rebuild-index", "--yes").code == 0
    assert identity(own) == first
    assert within(own, *GC).code == 0


def test_fault_46_identity_that_is_something_else_is_refused(own: Path) -> None:
    (own / ".ckpt" / "id").write_text("../../x\n")
    ran: Ran = within(own, "tag", "v1", "nice")
    assert (ran.code, "not an id of a registry" in ran.err) == (4, True)
