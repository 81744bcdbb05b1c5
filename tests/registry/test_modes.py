"""Who may read and write what a registry is made of (FAULTS 45)."""

import os
import stat
from pathlib import Path

import pytest
import torch

from ckpt.ops.register import register
from ckpt.registry.registry import Registry


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_fault_45_objects_are_read_only_and_the_rest_is_as_umask_says(
    umask: int, tmp_path: Path
) -> None:
    torch.save({"w": torch.ones(2000)}, tmp_path / "net.pt")
    folder = tmp_path / "registry"
    before = os.umask(umask)
    try:
        folder.mkdir()
        register(tmp_path / "net.pt", registry=Registry(folder))
        register(tmp_path / "net.pt", registry=Registry(folder), name="again")
    finally:
        os.umask(before)
    for name, mode in modes(folder).items():
        if (folder / name).is_dir():
            assert mode == 0o777 & ~umask, name
        elif name.startswith((".ckpt/objects", ".ckpt/manifests")):
            assert mode == 0o444, name
        else:
            assert mode == 0o666 & ~umask, name


def test_index_keeps_the_mode_that_somebody_gave_it(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2000)}, tmp_path / "net.pt")
    registry = Registry(tmp_path)
    register(tmp_path / "net.pt", registry=registry)
    (tmp_path / "registry.json").chmod(0o664)
    register(tmp_path / "net.pt", registry=registry, name="again")
    assert modes(tmp_path)["registry.json"] == 0o664
