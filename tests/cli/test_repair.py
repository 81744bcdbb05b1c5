"""`ckpt verify --repair`: good copies of what is damaged, and of nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ckpt.registry import manifest
from ckpt.registry.registry import Registry
from tests.cli.support import Run, tree, weights


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])


def link_elsewhere(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


Damage = Callable[[Path], None]
damages = pytest.mark.parametrize("damage", [flip, cut, Path.unlink, link_elsewhere])


@pytest.fixture
def two(ckpt: Run, folder: Path) -> Run:
    """`net` v1, v2 that renames it, and a copy of the store in backup."""
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    assert ckpt("rename", "net:v1", "--rule", "conv=embed").code == 0
    shutil.copytree(folder / ".ckpt", folder / "backup" / ".ckpt")
    return ckpt


def harm_all(folder: Path, damage: Damage, *, manifests: bool = True) -> int:
    held = [each for each in Registry(folder).store.objects() if manifests or not each.is_manifest]
    for each in held:
        damage(each.path)
    return len(held)


@damages
def test_fault_37_all_is_taken_from_another_registry(
    damage: Damage, two: Run, folder: Path
) -> None:
    before = tree(folder / "backup/.ckpt/objects")
    count = harm_all(folder, damage)
    assert two("verify").code == 4
    ran = two("verify", "--repair", "backup", "--json")
    assert (ran.code, len(ran.data["repaired"]), ran.data["damages"]) == (0, count, [])
    assert two("export", "net:v1", "-o", "again.pt").code == 0
    assert (folder / "again.pt").read_bytes() == (folder / "net.pt").read_bytes()
    assert tree(folder / "backup/.ckpt/objects") == before


@pytest.mark.parametrize("damage", [flip, cut])
def test_fault_37_all_is_taken_from_a_remote(
    damage: Damage, two: Run, folder: Path, tmp_path: Path
) -> None:
    assert two("remote", "add", "origin", (tmp_path / "remote").as_uri()).code == 0
    assert two("push").code == 0
    count = harm_all(folder, damage)
    ran = two("verify")
    assert (ran.code, "or a remote" in ran.out) == (4, True)
    harm_all(folder / "backup", damage)
    ran = two("verify", "--repair", "backup", "--repair", "origin", "--json")
    assert (ran.code, len(ran.data["repaired"]), ran.data["damages"]) == (0, count, [])
    assert {each["from"] for each in ran.data["repaired"]} == {"origin"}
    assert two("export", "net:v1", "-o", "again.pt").code == 0
    assert (folder / "again.pt").read_bytes() == (folder / "net.pt").read_bytes()


def test_fault_37_remote_whose_objects_are_damaged_gives_none(
    two: Run, folder: Path, tmp_path: Path
) -> None:
    assert two("remote", "add", "origin", (tmp_path / "remote").as_uri()).code == 0
    assert two("push").code == 0
    for path in (tmp_path / "remote/objects").rglob("*/*"):
        flip(path)
    count = harm_all(folder, flip, manifests=False)
    ran = two("verify", "--repair", "origin", "--json")
    assert (ran.code, ran.data["repaired"], len(ran.data["damages"])) == (4, [], count)


@damages
@pytest.mark.parametrize("place", ["net.pt", "other.safetensors"])
def test_fault_37_tensors_are_taken_from_a_file(
    place: str, damage: Damage, two: Run, folder: Path
) -> None:
    """Of any container, and under any names: bytes are what counts."""
    if place == "other.safetensors":
        renamed = {f"x.{key}": tensor for key, tensor in weights().items()}
        safetensors.torch.save_file(renamed, folder / place)
    count = harm_all(folder, damage, manifests=False)
    ran = two("verify", "--repair", place)
    assert ran.code == 0, ran
    assert ran.out.count(f" from {place}\n") == count
    assert "all good" in ran.out
    assert two("export", "net:v1", "-o", "again.pt").code == 0
    assert (folder / "again.pt").read_bytes() == (folder / "net.pt").read_bytes()


def test_fault_37_other_weights_repair_nothing(two: Run, folder: Path) -> None:
    torch.save(weights(1), folder / "other.pt")
    count = harm_all(folder, flip)
    before = tree(folder)
    ran = two("verify", "--repair", "other.pt", "--json")
    assert (ran.code, ran.data["repaired"], len(ran.data["damages"])) == (4, [], count)
    assert tree(folder) == before


def test_fault_37_damaged_place_is_not_believed_and_the_next_one_is(two: Run, folder: Path) -> None:
    shutil.copytree(folder / "backup", folder / "rotten")
    harm_all(folder / "rotten", flip)
    harm_all(folder, flip)
    ran = two("verify", "--repair", "rotten", "--repair", "backup", "--json")
    assert ran.code == 0, ran
    assert {each["from"] for each in ran.data["repaired"]} == {"backup"}


def test_version_that_was_removed_is_verified_and_repaired(two: Run, folder: Path) -> None:
    torch.save(weights(1), folder / "net.pt")
    assert two("register", "net.pt").code == 0
    assert two("rm", "net:v3", "--yes").code == 0
    harm_all(folder, flip, manifests=False)
    ran = two("verify")
    assert (ran.code, "used by net:v3 (removed) fc1.weight" in ran.out) == (4, True)
    assert two("verify", "--repair", "net.pt", "--repair", "backup").code == 0


def test_damaged_object_that_nothing_needs_says_so(two: Run, folder: Path) -> None:
    store = Registry(folder).store
    store.put([b"x" * 5000])
    (held,) = [each for each in store.objects() if each.nbytes == 5000]
    flip(held.path)
    ran = two("verify")
    assert (ran.code, "used by no version" in ran.out, "ckpt gc" in ran.out) == (4, True, True)
    assert two("gc", "--grace", "0", "--yes").code == 0
    assert two("verify").code == 0


@pytest.mark.parametrize("place", ["absent.pt", "registry.json"])
def test_place_that_is_none_is_an_error(place: str, two: Run, folder: Path) -> None:
    harm_all(folder, flip)
    ran = two("verify", "--repair", place)
    assert ran.code in (2, 3)
    assert place in ran.err


def test_manifest_is_taken_as_an_earlier_ckpt_wrote_it(
    two: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Today it would have columns."""
    monkeypatch.setattr(manifest, "PLAIN_BYTES", 0)
    before = tree(folder / ".ckpt/manifests")
    for each in Registry(folder).store.objects():
        if each.is_manifest:
            each.path.unlink()
    ran = two("verify", "--repair", "backup", "--json")
    assert (ran.code, len(ran.data["repaired"]), ran.data["damages"]) == (0, 2, [])
    assert tree(folder / ".ckpt/manifests") == before
