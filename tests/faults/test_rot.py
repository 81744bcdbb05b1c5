"""FAULTS 37: one bit of what is stored flips. It is found, named, and not handed on."""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ckpt.registry.registry import Registry
from ckpt.registry.store.listing import StoredObject
from tests.cli.support import tree
from tests.faults.stage import Scene, copy, within

DAMAGED = 4


@pytest.fixture
def registry(scenes: Callable[[str], Scene], folder: Path) -> Registry:
    """net v1, v2 that renames it, v3 of other weights; other v1 of the same weights as net v3."""
    copy(scenes("register").template, folder)
    for name in ("net", "other"):
        assert within(folder, "register", "new.safetensors", "--name", name).code == 0
    return Registry(folder)


@contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """One bit of a file is another one while the block runs."""
    good = path.read_bytes()
    bad = bytearray(good)
    bad[bit // 8 % len(bad)] ^= 1 << bit % 8
    path.chmod(0o644)
    path.write_bytes(bad)
    try:
        yield
    finally:
        path.write_bytes(good)
        path.chmod(0o444)


def needed_by(registry: Registry, held: StoredObject) -> dict[str, str]:
    """The versions that need it, with the key that it is there."""
    found = {}
    for version in registry.versions():
        if held.is_manifest:
            if version.manifest == held.digest:
                found[version.ref] = ""
        elif held.digest in (objects := registry.manifest(version).objects()):
            found[version.ref] = objects[held.digest][1]
    return found


def test_fault_37_flipped_bit_is_found_and_not_handed_on(
    registry: Registry, folder: Path, record_property: Callable[[str, object], None]
) -> None:
    stored = list(registry.store.objects())
    for at, held in enumerate(stored):
        needed = needed_by(registry, held)
        assert needed
        with flipped(held.path, 12_345 * (at + 1)):
            expect_found(folder, needed)
            expect_refused(folder, needed)
            expect_others_work(folder, set(needed))
        assert within(folder, "verify").code == 0
    record_property("figure", f"a bit flipped in each of {len(stored)} stored files: all found")


def expect_found(folder: Path, needed: dict[str, str]) -> None:
    ran = within(folder, "verify")
    assert ran.code == DAMAGED, ran
    for ref, key in needed.items():
        assert f"{ref} {key}".strip() in ran.out, ran


def expect_refused(folder: Path, needed: dict[str, str]) -> None:
    """By each command that reads what is damaged; nothing of it reaches a file."""
    before = tree(folder)
    for ref, key in needed.items():
        for words in (
            ("export", ref, "-o", "out.safetensors"),
            ("export", ref, "-o", "out.pt"),
            ("show", ref, "--deep"),
        ):
            ran = within(folder, *words)
            assert ran.code == DAMAGED, (words, ran)
            assert ref in ran.err, (words, ran)
            assert key in ran.err, (words, ran)
    assert tree(folder) == before


def expect_others_work(folder: Path, needed: set[str]) -> None:
    for words in (("ls",), ("alias",), ("undo", "--list"), ("du",)):
        ran = within(folder, *words)
        # What a version takes is in its manifest.
        assert ran.code == 0 or (words == ("du",) and ran.code == DAMAGED), (words, ran)
    for version in Registry(folder).versions():
        if version.ref not in needed:
            ran = within(folder, "export", version.ref, "-o", "out.safetensors", "--force")
            assert ran.code == 0, ran
            (folder / "out.safetensors").unlink()


def test_fault_37_versions_are_compared_by_what_was_registered(
    registry: Registry, folder: Path
) -> None:
    """By their manifests, which are hashed as they are read; a damaged object does not matter."""
    manifests = {version.manifest for version in registry.versions("net")}
    good = within(folder, "diff", "net:v1", "net:v3")
    for held in list(registry.store.objects()):
        with flipped(held.path, 99):
            ran = within(folder, "diff", "net:v1", "net:v3")
        if held.digest in manifests and held.digest != registry.version("net:v2").manifest:
            assert ran.code == DAMAGED, ran
            assert "net:v" in ran.err
        else:
            assert ran == good


def test_fault_37_rename_of_what_is_damaged_adds_nothing(registry: Registry, folder: Path) -> None:
    """Unless it does not read it: then the new version is as damaged as the old one, and named."""
    before = registry.index()
    for held in list(registry.store.objects()):
        if "net:v1" not in needed_by(registry, held):
            continue
        with flipped(held.path, 7):
            ran = within(folder, "rename", "net:v1", "--rule", "fc=head")
            if ran.code == 0:
                assert "net:v4" in within(folder, "verify").out
                assert within(folder, "export", "net:v4", "-o", "x.safetensors").code == DAMAGED
                assert within(folder, "undo").code == 0
            else:
                assert ran.code == DAMAGED, ran
                assert "net:v1" in ran.err
        assert Registry(folder).index().models["net"].versions == before.models["net"].versions


def test_fault_37_same_bytes_again_heal(registry: Registry, folder: Path) -> None:
    """An object that is there is hashed before it is trusted."""
    needed = registry.manifest(registry.version("net:v3")).objects()
    held = next(each for each in registry.store.objects() if each.digest in needed)
    path = held.path
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    path.chmod(0o444)
    assert within(folder, "register", "new.safetensors", "--name", "third").code == 0
    assert within(folder, "verify").code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
