"""FAULTS 35 and 36: what collects garbage beside writers, and with clocks that are wrong."""

import os
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from ckpt.errors import ConflictError, DiskError
from ckpt.lock import exclusive
from ckpt.ops.garbage import collect
from ckpt.ops.register import register
from ckpt.ops.registry import Registry
from ckpt.ops.removal import remove
from ckpt.ops.verify import verify

CKPT = str(Path(sys.executable).with_name("ckpt"))
GC = [CKPT, "gc", "--keep-removed", "0", "--grace", "0", "--yes"]
SLOWLY = "400000"  # microseconds before each call of a kind
NAMING = "link,linkat,rename,renameat,renameat2"
strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
faketime = pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A registry with `net` v1, and other weights in new.pt."""
    for seed, name in enumerate(("net.pt", "new.pt")):
        generator = torch.Generator().manual_seed(seed)
        weights = {f"fc{at}.weight": torch.randn(50, 50, generator=generator) for at in range(3)}
        torch.save(weights, tmp_path / name)
    register(tmp_path / "net.pt", registry=Registry(tmp_path))
    return tmp_path


def start(folder: Path, *command: str, slow: str = "") -> subprocess.Popen[str]:
    """A command; with `slow`, these calls of the system take long."""
    traced = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={slow}",
              "-e", f"inject={slow}:delay_enter={SLOWLY}"] if slow else []  # fmt: skip
    return subprocess.Popen(
        [*traced, *command], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_until_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until some process has the store, shared or alone."""
    monkeypatch.setenv("CKPT_LOCK_SECONDS", "0")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with exclusive(Registry(folder).store.lock):
                time.sleep(0.01)
        except ConflictError:
            monkeypatch.delenv("CKPT_LOCK_SECONDS")
            return
    raise AssertionError("nobody took it")


def ended(process: subprocess.Popen[str]) -> int:
    """Its exit code."""
    process.communicate(timeout=60)
    return process.returncode


@strace
def test_fault_35_objects_of_a_version_in_the_making_survive(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the objects' names and the index nothing names them."""
    writer = start(folder, CKPT, "register", "new.pt", "--name", "net", slow=NAMING)
    wait_until_held(folder, monkeypatch)
    collector = start(folder, *GC)
    out, err = collector.communicate(timeout=60)
    assert (collector.returncode, out) == (0, "nothing to remove\n"), err
    assert ended(writer) == 0
    registry = Registry(folder)
    assert [version.label for version in registry.versions("net")] == ["v2", "v1"]
    assert not verify(registry=registry).damages


@strace
def test_fault_35_object_found_again_as_it_is_condemned_survives(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(folder)
    register(folder / "new.pt", registry=registry, name="net")
    remove(["net:v2"], registry=registry)
    collector = start(folder, *GC, slow="unlink,unlinkat")
    wait_until_held(folder, monkeypatch)
    writer = start(folder, CKPT, "register", "new.pt", "--name", "net")
    out, err = writer.communicate(timeout=60)
    assert (writer.returncode, "net:v3" in out) == (0, True), err
    assert ended(collector) == 0
    assert [version.label for version in registry.versions("net")] == ["v3", "v1"]
    assert not verify(registry=registry).damages


@faketime
@pytest.mark.parametrize("jump", ["+10y", "-10y"])
def test_fault_36_clock_that_is_wrong_removes_nothing(jump: str, folder: Path) -> None:
    registry = Registry(folder)
    register(folder / "new.pt", registry=registry, name="net")
    remove(["net:v2"], registry=registry)
    registry.store.put([b"x" * 5000])
    before = {each.path for each in registry.store.held()}
    ran = start(folder, "faketime", "-f", jump, CKPT, "gc", "--yes")
    _, err = ran.communicate(timeout=60)
    assert ran.returncode == 5, err
    assert "nothing was removed" in err
    assert {each.path for each in registry.store.held()} == before


def test_fault_36_what_is_dated_in_the_future_removes_nothing(folder: Path) -> None:
    registry = Registry(folder)
    registry.store.put([b"x" * 5000])
    for each in registry.store.held():
        os.utime(each.path, (time.time() + 86400,) * 2)
    before = {each.path for each in registry.store.held()}
    with pytest.raises(DiskError, match=r"is dated .* and the clock says"):
        collect(registry=registry, grace=timedelta())
    assert {each.path for each in registry.store.held()} == before


@faketime
def test_fault_36_order_is_by_number_not_by_time(folder: Path) -> None:
    """A version registered ten years before the first one is still the latest."""
    ran = start(folder, "faketime", "-f", "-10y", CKPT, "register", "new.pt", "--name", "net")
    _, err = ran.communicate(timeout=60)
    assert ran.returncode == 0, err
    registry = Registry(folder)
    assert registry.version("net").label == "v2"
    assert registry.version("net").created < registry.version("net:v1").created
