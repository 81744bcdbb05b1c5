"""FAULTS 38: what somebody else has done to the store."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ckpt.io import digest
from ckpt.registry.registry import Registry
from tests.cli.support import tree
from tests.faults.stage import CKPT, Scene, copy, run, within

DAMAGED = 4


@pytest.fixture
def registry(scenes: Callable[[str], Scene], folder: Path) -> Registry:
    """net v1, and v2 that renames it."""
    copy(scenes("register").template, folder)
    return Registry(folder)


def an_object(registry: Registry) -> Path:
    """The object of fc.weight."""
    manifest = registry.manifest(registry.version("net:v1"))
    name = next(entry.digest for entry in manifest.entries if entry.key == "fc.weight")
    return next(each.path for each in registry.store.objects() if each.digest == name)


def emptied(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, 4096)


def longer(path: Path) -> None:
    path.chmod(0o644)
    with path.open("ab") as file:
        file.write(b"x")


def linked_to_others(path: Path) -> None:
    """Another name of a file with other bytes."""
    other = path.parents[3].with_name("elsewhere")
    other.write_bytes(bytes(path.stat().st_size))
    path.unlink()
    os.link(other, path)


def symbolic(path: Path) -> None:
    """Leads out of the store, to the very same bytes."""
    other = path.parents[3].with_name("elsewhere")
    path.rename(other)
    path.symlink_to(other)


def leads_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


EDITS = [
    Path.unlink, emptied, truncated, longer, linked_to_others, symbolic, leads_to_itself, a_folder,
    a_pipe,
]  # fmt: skip


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_fault_38_object_that_is_another_thing_is_named_and_not_handed_on(
    edit: Callable[[Path], None], registry: Registry, folder: Path
) -> None:
    path = an_object(registry)
    edit(path)
    ran = within(folder, "verify")
    assert ran.code == DAMAGED, ran
    assert "net:v1 fc.weight" in ran.out
    assert "net:v2 fc.weight" in ran.out
    for words in (
        ("export", "net:v1", "-o", "out.safetensors"),
        ("show", "net:v1", "--deep"),
    ):
        ran = within(folder, *words)
        assert ran.code == DAMAGED, (words, ran)
        assert "net:v1" in ran.err
    assert not (folder / "out.safetensors").exists()
    assert within(folder, "ls").code == 0
    elsewhere = folder.with_name("elsewhere")
    assert not elsewhere.exists() or elsewhere.stat().st_size == 4 * 4096


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_fault_38_same_bytes_again_take_its_place(
    edit: Callable[[Path], None], registry: Registry, folder: Path
) -> None:
    path = an_object(registry)
    edit(path)
    ran = run(folder, *CKPT, "register", "net.safetensors", "--name", "again")
    if edit is a_folder:  # which is not ckpt's to remove
        assert ran.code == 5, ran
        return
    assert ran.code == 0, ran
    assert within(folder, "verify").code == 0
    assert path.is_file()
    assert not path.is_symlink()
    elsewhere = folder.with_name("elsewhere")
    if edit is linked_to_others:
        assert elsewhere.read_bytes() == bytes(4 * 4096), "its other name is left alone"


def test_fault_38_what_does_no_harm_is_let_be(registry: Registry, folder: Path) -> None:
    path = an_object(registry)
    path.chmod(0o666)
    strange = [
        path.with_name("notes.txt"),
        path.parents[1] / "README",
        path.parents[2] / "keep",
        folder / ".ckpt" / "tmp" / "keep",
    ]
    for each in strange:
        each.write_bytes(b"somebody's")
    assert within(folder, "verify").code == 0
    assert within(folder, "export", "net:v1", "-o", "out.safetensors").code == 0
    assert (folder / "out.safetensors").read_bytes() == (folder / "net.safetensors").read_bytes()
    assert within(folder, "gc", "--grace", "0", "--yes").code == 0
    assert all(each.exists() for each in strange)


def test_fault_38_file_with_a_name_that_its_bytes_do_not_have(
    registry: Registry, folder: Path
) -> None:
    name = digest.of_bytes(b"one").removeprefix("sha256:")
    path = folder / ".ckpt" / "objects" / name[:2] / name[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"two")
    ran = within(folder, "verify")
    assert (ran.code, "used by no version" in ran.out) == (DAMAGED, True), ran
    assert within(folder, "gc", "--grace", "0", "--yes").code == 0
    assert not path.exists()
    assert within(folder, "verify").code == 0


@pytest.mark.parametrize("name", ["objects", "manifests", "tmp", "objects/*"])
def test_fault_38_folder_that_leads_out_of_the_store_is_not_followed(
    name: str, registry: Registry, folder: Path
) -> None:
    """Nothing is read there, written or removed, though the bytes there are the very same."""
    lost = digest.of_bytes(b"lost").removeprefix("sha256:")
    if name == "objects/*":
        place = an_object(registry).parent
        lost = place.name + lost[2:]
    else:
        place = folder / ".ckpt" / name
    outside = folder.with_name("outside")
    place.rename(outside)
    place.symlink_to(outside)
    for path in (outside / lost[:2] / lost[2:], outside / lost[2:],
                 outside / ".ckpt-0123456789abcdef.tmp"):  # fmt: skip
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"lost")
    before = tree(outside)
    for words in (
        ("register", "new.safetensors", "--name", "net"),
        ("export", "net:v1", "-o", "out.safetensors"),
        ("rename", "net:v1", "--rule", "fc=head"),
        ("gc", "--grace", "0", "--keep-removed", "0", "--yes"),
        ("verify",),
        ("verify", "--repair", "net.safetensors"),
    ):
        ran = within(folder, *words)
        assert tree(outside) == before, words
        if ran.code or words[0] == "gc":
            assert ran.code == DAMAGED, (words, ran)
            assert "a symbolic link" in ran.err + ran.out, (words, ran)
    place.unlink()
    outside.rename(place)
    assert within(folder, "verify").code in (0, DAMAGED)
