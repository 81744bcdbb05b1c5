"""Registering on several threads: the same version, and failures that leave nothing behind."""

from pathlib import Path

import pytest
import torch

from ckpt.errors import FormatError
from ckpt.io.rights import Rights
from ckpt.ops import register as registering
from ckpt.ops.verify import verify
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry
from ckpt.registry.store.objects import Put


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
    monkeypatch.setattr(registering, "_WORTH_THREADS", 0)


def test_threads_give_the_same_manifest(tmp_path: Path, threads: None, monkeypatch) -> None:
    path = large(tmp_path / "net.pt")
    found = []
    for name, worth in (("threads", 0), ("alone", 1 << 40)):
        monkeypatch.setattr(registering, "_WORTH_THREADS", worth)
        folder = tmp_path / name
        folder.mkdir()
        added = registering.register(path, registry=Registry(folder))
        found.append((added.version.content, added.version.new_bytes))
        assert not verify(registry=Registry(folder)).damages
    assert found[0] == found[1]
    assert found[0][1] == 39 * 40_000


def test_damaged_tensor_is_refused_by_threads_too(tmp_path: Path, threads: None) -> None:
    path = large(tmp_path / "net.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    registry = Registry(tmp_path)
    with pytest.raises(FormatError, match="is damaged: its CRC-32 is"):
        registering.register(path, registry=registry)
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
        faster.append(registering.register(path, registry=Registry(tmp_path)))
        return put_manifest(manifest, rights)

    monkeypatch.setattr(registry.store, "put_manifest", meanwhile)
    slower = registering.register(path, registry=registry)
    assert slower.version == faster[0].version
    assert (faster[0].new, slower.new) == (True, False)
