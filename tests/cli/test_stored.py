"""Objects that are not there yet, or not any more, and names of models that come from files."""

import gzip
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch

import ckpt as api
from ckpt.io.temporaries import temporary_file
from ckpt.registry.registry import Registry
from ckpt.registry.store.listing import StoredObject
from ckpt.registry.store.objects import ObjectStore
from tests.cli.support import Run, weights
from tests.faults.checker import check


def pointer(data: bytes) -> bytes:
    """As the specification of Git LFS has it."""
    digest = hashlib.sha256(data).hexdigest()
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n"
    ).encode()


@pytest.mark.parametrize("kind", ["objects", "manifests"])
def test_objects_that_git_lfs_has_not_fetched_are_named(kind: str, ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    for path in (folder / ".ckpt" / kind).glob("??/*"):
        path.chmod(0o644)
        path.write_bytes(pointer(path.read_bytes()))
    for words in (("verify",), ("export", "v1", "-o", "out.pt"), ("show", "v1", "--deep")):
        ran = ckpt(*words)
        text = ran.out + ran.err
        assert ran.code == 4, words
        assert "is a Git-LFS pointer, not its bytes" in text, words
        assert "git lfs pull  fetches all of them" in text, words
    assert ckpt("verify", "--repair", "net.pt").code == (0 if kind == "objects" else 4)


@pytest.mark.parametrize(
    ("file", "model"),
    [
        ("x.pth.tar", "x"),
        ("x.PTH.TAR", "x"),
        ("best.model.pt.bak", "best.model"),
        ("a.safetensors.ckpt", "a"),
        ("v1.5.pt", "v1.5"),
        ("モデルA.pt", "A"),
    ],
)
def test_model_of_a_file_can_be_named_by_a_ref(
    file: str, model: str, ckpt: Run, folder: Path
) -> None:
    torch.save(weights(), folder / file)
    assert ckpt("register", file, "--json").data["model"] == model
    assert ckpt("show", model, "--json").data["version"]["model"] == model


@pytest.mark.parametrize("file", ["モデル.pt", ".pt", "....pt", ".pth.tar"])
def test_file_whose_name_gives_none_asks_for_one(file: str, ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    (folder / "net.pt").rename(folder / file)
    ran = ckpt("register", f"./{file}")
    assert (ran.code, ran.err.splitlines()[0]) == (2, f"error: {file}: gives no name for a model")
    assert "--name NAME  names the model" in ran.err
    assert ckpt("register", f"./{file}", "--name", "net").code == 0
    made = ("rename", f"./{file}", "--rule", "conv=embed", "-o", "made.pt", "--register")
    assert ckpt(*made, "--name", "other").code == 0


def test_name_that_a_ref_would_read_as_a_file_is_refused(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    message = "cannot be a name: refs would read it as a file"
    for words in (
        ("register", "net.pt", "--name", "x.pth"),
        ("train", "--dataset", "digits", "--register", "--name", "x.safetensors"),
    ):
        ran = ckpt(*words)
        assert (ran.code, message in ran.err) == (2, True), words
    assert ckpt("register", "net.pt").code == 0
    ran = ckpt("alias", "prod.bin", "v1")
    assert (ran.code, message in ran.err) == (2, True)


class Slow(ObjectStore):
    """Another process collects garbage when this one has listed the objects, the first time."""

    begun = False

    def objects(self) -> Iterator[StoredObject]:
        found = list(super().objects())
        if self.begun:
            return iter(found)
        self.begun = True
        api.gc(grace=timedelta(), keep_removed=timedelta(), registry=Registry(self.root.parent))
        return iter(found)


def test_verify_beside_gc_raises_no_alarm(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    torch.save(weights(1), folder / "other.pt")
    assert ckpt("register", "net.pt").code == ckpt("register", "other.pt").code == 0
    assert ckpt("rm", "other:v1", "--yes").code == 0
    before = len(list((folder / ".ckpt/objects").glob("??/*")))
    registry = Registry(folder)
    vars(registry)["store"] = Slow(folder / ".ckpt")
    verified = api.verify(registry=registry)
    assert verified.damages == ()
    assert 0 < verified.objects < before


def test_verify_finds_damage_where_nothing_can_be_locked(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    next((folder / ".ckpt/objects").glob("??/*")).unlink()
    (folder / ".ckpt/writing").unlink()
    (folder / ".ckpt/writing").mkdir()
    ran = ckpt("verify")
    assert (ran.code, "is missing" in ran.out) == (4, True), ran


def test_verify_and_gc_agree_on_what_is_damaged(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    before = (folder / "registry.json").read_bytes()
    torch.save(weights(1), folder / "net.pt")
    line = ckpt("register", "net.pt", "--json").data
    (folder / "registry.json").write_bytes(before)  # as after `git checkout registry.json`
    assert ckpt("verify").code == ckpt("gc", "--yes").code == 0
    digest = line["manifest"].removeprefix("sha256:")
    path = folder / ".ckpt/manifests" / digest[:2] / digest[2:]
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-1] + b" ")
    for words in (("verify",), ("gc", "--yes")):
        ran = ckpt(*words)
        assert ran.code == 4, words
        assert f"version sha256:{digest[:8]} of the reflog: " in ran.out + ran.err, words
    path.write_bytes(good)
    assert ckpt("verify").code == ckpt("gc", "--yes").code == 0


@pytest.mark.parametrize("place", [".", ".ckpt"])
def test_gc_leaves_the_temporary_of_a_running_writer(place: str, ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    with temporary_file(folder / place) as (written, _):
        assert ckpt("gc", "--grace", "0", "--yes").code == 0
        assert written.exists()
        left = folder / place / ".ckpt-0123456789abcdef.tmp"
        left.write_bytes(b"of a killed writer")
        assert ckpt("gc", "--grace", "0", "--yes").code == 0
        assert written.exists()
        assert not left.exists()


def test_version_of_many_keys_is_like_any_other(ckpt: Run, folder: Path) -> None:
    """Its manifest has columns and is deflated."""
    state = {f"layer{at}.weight": torch.rand(2, 3) for at in range(400)}
    torch.save(state, folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    assert ckpt("rename", "net:v1", "--rule", "layer=block").code == 0
    for path in folder.glob(".ckpt/manifests/??/*"):
        assert gzip.decompress(path.read_bytes()).startswith(b'{"digests":')
    assert "already registered as net:v1" in ckpt("register", "net.pt").out
    assert len(ckpt("diff", "net:v1", "net:v2", "--json").data["renamed"]) == 400
    check(folder)
    before = ckpt("ls", "--json").data
    for path in (folder / "registry.json", folder / ".ckpt/reflog"):
        path.unlink()
    assert ckpt("fsck", "--rebuild-index", "--yes").code == 0
    assert ckpt("ls", "--json").data == before
    assert ckpt("verify").code == 0
    for version, prefix in (("v1", "layer"), ("v2", "block")):
        assert ckpt("export", f"net:{version}", "-o", f"{version}.pt").code == 0
        assert list(torch.load(folder / f"{version}.pt")) == [
            f"{prefix}{at}.weight" for at in range(400)
        ]
    assert (folder / "v1.pt").read_bytes() == (folder / "net.pt").read_bytes()
