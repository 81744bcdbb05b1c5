"""Registering: only new bytes are written, threads change nothing, failures leave nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ckpt.errors import FormatError, RefError, UsageError
from ckpt.io import digest
from ckpt.io.rights import Rights
from ckpt.ops.export import export
from ckpt.ops.register import content_of, register, storing
from ckpt.ops.verify import verify
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry
from ckpt.registry.store.objects import Put
from tests.faults.disk import mounted, nearly_full
from tests.faults.strace import needed


def large(path: Path) -> Path:
    """Forty tensors, two of which are the same, with a small one between them."""
    generator = torch.Generator().manual_seed(1)
    state = {f"layer{at}.weight": torch.randn(10_000, generator=generator) for at in range(40)}
    state["layer7.weight"] = state["layer3.weight"].clone()
    state["bias"] = torch.arange(3.0)
    torch.save(state, path)
    return path


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "_WORTH_THREADS", 0)


def test_threads_give_the_same_manifest(tmp_path: Path, threads: None, monkeypatch) -> None:
    path = large(tmp_path / "net.pt")
    found = []
    for name, worth in (("threads", 0), ("alone", 1 << 40)):
        monkeypatch.setattr(storing, "_WORTH_THREADS", worth)
        folder = tmp_path / name
        folder.mkdir()
        added = register(path, registry=Registry(folder))
        found.append((added.version.content, added.version.new_bytes))
        assert not verify(registry=Registry(folder)).damages
    assert found[0] == found[1]
    assert 39 * 40_000 < found[0][1] < 39 * 40_000 + 20_000  # with the manifest


def test_damaged_tensor_is_refused_by_threads_too(tmp_path: Path, threads: None) -> None:
    path = large(tmp_path / "net.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    registry = Registry(tmp_path)
    with pytest.raises(FormatError, match="is damaged: its CRC-32 is"):
        register(path, registry=registry)
    assert not registry.exists
    assert not list((tmp_path / ".ckpt" / "tmp").iterdir())


def test_whoever_was_slower_with_the_same_file_adds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process registers it between the look at the index and the lock."""
    path, registry = large(tmp_path / "net.pt"), Registry(tmp_path)
    put_manifest = registry.store.put_manifest
    faster = []

    def meanwhile(manifest: Manifest, rights: Rights) -> Put:
        faster.append(register(path, registry=Registry(tmp_path)))
        return put_manifest(manifest, rights)

    monkeypatch.setattr(registry.store, "put_manifest", meanwhile)
    slower = register(path, registry=registry)
    assert slower.version == faster[0].version
    assert (faster[0].new, slower.new) == (True, False)


def big(path: Path, *, seed: int = 0, changed: int | None = None) -> Path:
    """Ten tensors of 2.4 MB and as many of 40 kB."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        f"layer{at}.weight": torch.randn(20 if at % 2 else 1200, 500, generator=generator)
        for at in range(20)
    }
    if changed is not None:
        state[f"layer{changed}.weight"] = state[f"layer{changed}.weight"] + 1
    torch.save(state, path)
    return path


def written_by(*words: str, folder: Path) -> tuple[str, int]:
    """The output of a command, and the bytes that it passed to write calls."""
    command = ["strace", "-f", "-qq", "-y", "-e", "trace=write,pwrite64,copy_file_range"]
    run = [sys.executable, "-m", "ckpt", *words]
    ran = subprocess.run([*command, *run], cwd=folder, capture_output=True, text=True, check=True)
    calls = re.findall(rf"\w+\(\d+<{re.escape(str(folder))}/.*= (\d+)", ran.stderr)
    return ran.stdout, sum(map(int, calls))


@needed
@pytest.mark.parametrize("changed", [4, 5], ids=["large", "small"])
def test_only_new_bytes_are_written(tmp_path: Path, changed: int) -> None:
    """The index and the manifest are allowed 50 kB."""
    registry, path = Registry(tmp_path), tmp_path / "net.pt"
    register(big(path), registry=registry)
    new = torch.load(big(path, changed=changed))[f"layer{changed}.weight"].nbytes
    _, written = written_by("register", "net.pt", folder=tmp_path)
    assert new <= written <= 1.1 * new + 50_000
    assert verify(registry=registry).damages == ()


@needed
def test_stored_file_with_a_transposed_view_is_not_written_again(tmp_path: Path) -> None:
    torch.save({"weight": torch.rand(500, 1200).t()}, tmp_path / "net.pt")
    register(tmp_path / "net.pt", registry=Registry(tmp_path))
    out, written = written_by("register", "net.pt", folder=tmp_path)
    assert out.startswith("already registered as net:v1")
    assert written < 50_000


@needed
def test_new_tensors_of_the_same_shapes_are_written_once(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    register(big(path), registry=Registry(tmp_path))
    _, written = written_by("register", str(big(path, seed=1)), folder=tmp_path)
    assert written <= 1.1 * path.stat().st_size


def test_file_that_is_stored_needs_no_room(tmp_path: Path) -> None:
    """2.9 MB are free for a version of 24 MB, of which 2.4 MB are new."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64m", "tmpfs") as disk:
        registry, path = Registry(disk), tmp_path / "net.pt"
        register(big(path), registry=registry)
        big(path, changed=4)
        with nearly_full(disk, pages=700):
            added = register(path, registry=registry)
            assert (added.new, register(path, registry=registry).new) == (True, False)
        assert verify(registry=registry).damages == ()


def test_damaged_object_of_a_large_tensor_is_healed(tmp_path: Path) -> None:
    registry, path = Registry(tmp_path), big(tmp_path / "net.pt")
    register(path, registry=registry)
    for each in registry.store.objects():
        if each.nbytes > 1 << 20:
            each.path.chmod(0o644)
            with each.path.open("r+b") as file:
                file.seek(each.nbytes // 2)
                file.write(b"rotten")
    assert len(verify(registry=registry).damages) == 10
    assert not register(path, registry=registry).new
    assert verify(registry=registry).damages == ()


def test_large_file_is_not_hashed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its version is found and exported by the digests of its tensors."""
    registry, path = Registry(tmp_path), big(tmp_path / "net.pt")
    small = register(path, registry=registry).version
    assert small.file == digest.of_bytes(path.read_bytes())
    monkeypatch.setattr(storing, "HASHED_WHOLE", path.stat().st_size - 1)
    assert register(path, registry=registry).version == small
    large = register(path, registry=registry, name="other").version
    assert (large.file, large.content, large.tensors) == (None, small.content, small.tensors)
    export(large.ref, tmp_path / "again.pt", registry=registry)
    assert (tmp_path / "again.pt").read_bytes() == path.read_bytes()


def test_definition_is_not_registered(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("class Net: ...\n")
    with pytest.raises(RefError, match=r"net\.py:Net is a definition and holds no weights"):
        register(f"{tmp_path}/net.py:Net", registry=Registry(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["net.py"]


def test_content_is_known_before_anything_is_stored(tmp_path: Path, threads: None) -> None:
    path = large(tmp_path / "net.pt")
    (tmp_path / "store").mkdir()
    content = content_of(path)
    assert [each.name for each in tmp_path.iterdir() if each.name != "store"] == ["net.pt"]
    added = register(path, registry=tmp_path / "store")
    assert (content.digest, content.kind, content.dropped) == (added.version.content, None, ())


def test_record_has_the_time_and_author_of_what_was_made_before(tmp_path: Path) -> None:
    registry, path = Registry(tmp_path), large(tmp_path / "net.pt")
    record = {"created": "2024-02-29T12:00:00+00:00", "by": {"author": "Bob", "host": ""}}
    version = register(path, registry=registry, record=record).version
    assert version.created == record["created"]
    assert registry.manifest(version).record["by"] == record["by"]
    with pytest.raises(UsageError, match=r"created: expected a time"):
        register(path, registry=registry, name="other", record={"created": "yesterday"})
    assert [each.ref for each in registry.versions()] == ["net:v1"]
