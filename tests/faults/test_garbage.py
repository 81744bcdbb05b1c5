"""FAULTS 35 and 36: what collects garbage beside writers, and with clocks that are wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from ckpt.errors import DiskError
from ckpt.ops.gc import gc
from ckpt.ops.register import register
from ckpt.ops.rm import rm
from ckpt.ops.verify import verify
from ckpt.registry.registry import Registry
from tests.effort import PATIENCE
from tests.faults import strace

CKPT = str(Path(sys.executable).with_name("ckpt"))
GC = [CKPT, "gc", "--keep-removed", "0", "--grace", "0", "--yes"]
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


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit code and output."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


@contextmanager
def stopped(
    folder: Path, calls: str, number: int, *command: str
) -> Iterator[subprocess.Popen[str]]:
    """A command that stands still before its `number`-th of some calls; then it goes on."""
    trace = folder.with_name(f"{folder.name}.stopped")
    options = ("-o", str(trace), "-e", f"inject={calls}:signal=STOP:when={number}")
    process = start(folder, *strace.traced(*options, names=(calls,)), *command)
    wait_for("stopped by SIGSTOP", trace, process)
    assert process.poll() is None, process.communicate()
    yield process
    os.kill(int(trace.read_text().split()[0]), signal.SIGCONT)


def start_beside(folder: Path, *command: str) -> subprocess.Popen[str]:
    """A command that has met a lock that another one has, or has ended without."""
    trace = folder.with_name(f"{folder.name}.beside")
    process = start(folder, *strace.traced("-o", str(trace), names=("flock",)), *command)
    wait_for("EAGAIN", trace, process)
    return process


def wait_for(text: str, trace: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not (trace.exists() and text in trace.read_text()):
        time.sleep(0.01)


@strace.needed
def test_fault_35_objects_of_a_version_in_the_making_survive(folder: Path) -> None:
    """Between the objects' names and the index nothing names them."""
    register_new = [CKPT, "register", "new.pt", "--name", "net"]
    with stopped(folder, "link,linkat", 2, *register_new) as writer:
        collector = start_beside(folder, *GC)
    code, out, err = ended(collector)
    assert (code, out) == (0, "nothing to remove\n"), err
    assert ended(writer)[0] == 0
    registry = Registry(folder)
    assert [version.label for version in registry.versions("net")] == ["v2", "v1"]
    assert not verify(registry=registry).damages


@strace.needed
def test_fault_35_object_found_again_as_it_is_condemned_survives(folder: Path) -> None:
    registry = Registry(folder)
    register(folder / "new.pt", registry=registry, name="net")
    rm(["net:v2"], registry=registry)
    with stopped(folder, "unlink,unlinkat", 1, *GC) as collector:
        writer = start_beside(folder, CKPT, "register", "new.pt", "--name", "net")
    code, out, err = ended(writer)
    assert (code, "net:v3" in out) == (0, True), err
    assert ended(collector)[0] == 0
    assert [version.label for version in registry.versions("net")] == ["v3", "v1"]
    assert not verify(registry=registry).damages


HELD = """
import sys, time
from pathlib import Path
from ckpt.cli import main
marker = Path(sys.argv.pop(1))
held = []

def watch(event, arguments):
    if event == "open" and "/objects/" in str(arguments[0]) and not held:
        held.append(marker.touch())
        while marker.exists():
            time.sleep(0.01)

sys.addaudithook(watch)
main(sys.argv[1:])
"""


def test_fault_35_verify_does_not_take_for_damage_what_gc_removes_beside_it(folder: Path) -> None:
    """It is held when it has listed the objects, and before it opens the first one."""
    registry = Registry(folder)
    register(folder / "new.pt", registry=registry, name="net")
    rm(["net:v2"], registry=registry)
    marker = folder.with_name("held")
    verifier = start(folder, sys.executable, "-P", "-c", HELD, str(marker), "verify", "--json")
    while verifier.poll() is None and not marker.exists():
        time.sleep(0.01)
    code, out, err = ended(start(folder, *GC))
    assert (code, out.startswith("removed")) == (0, True), err
    marker.unlink()
    code, out, err = ended(verifier)
    assert (code, json.loads(out)["damages"]) == (0, []), err


@strace.needed
def test_fault_35_gc_leaves_the_temporary_of_an_index_that_is_being_written(folder: Path) -> None:
    """With `--grace 0`, and where gc does not wait for the writer. The first sync is the log's."""
    with stopped(folder, "fsync", 2, CKPT, "alias", "prod", "net:v1") as writer:
        (temporary,) = folder.glob(".ckpt-*.tmp")
        code, out, err = ended(start(folder, CKPT, "gc", "--files", ".", "--yes"))
        assert (code, "kept: being written" in out) == (0, True), err
        collector = start_beside(folder, *GC)
        assert temporary.exists()
    assert ended(writer)[0] == ended(collector)[0] == 0
    assert Registry(folder).index().model("net").aliases == {"prod": 1}
    assert not list(folder.glob(".ckpt-*.tmp"))


@faketime
@pytest.mark.parametrize("jump", ["+10y", "-10y"])
def test_fault_36_clock_that_is_wrong_removes_nothing(jump: str, folder: Path) -> None:
    registry = Registry(folder)
    register(folder / "new.pt", registry=registry, name="net")
    rm(["net:v2"], registry=registry)
    registry.store.put([b"x" * 5000])
    before = {each.path for each in registry.store.objects()}
    ran = start(folder, "faketime", "-f", jump, CKPT, "gc", "--yes")
    code, _, err = ended(ran)
    assert code == 5, err
    assert "nothing was removed" in err
    assert {each.path for each in registry.store.objects()} == before


def test_fault_36_what_is_dated_in_the_future_removes_nothing(folder: Path) -> None:
    registry = Registry(folder)
    registry.store.put([b"x" * 5000])
    for each in registry.store.objects():
        os.utime(each.path, (time.time() + 86400,) * 2)
    before = {each.path for each in registry.store.objects()}
    with pytest.raises(DiskError, match=r"is dated .* but the clock says"):
        gc(registry=registry, grace=timedelta())
    assert {each.path for each in registry.store.objects()} == before


@faketime
def test_fault_36_order_is_by_number_not_by_time(folder: Path) -> None:
    """A version registered ten years before the first one is still the latest."""
    ran = start(folder, "faketime", "-f", "-10y", CKPT, "register", "new.pt", "--name", "net")
    code, _, err = ended(ran)
    assert code == 0, err
    registry = Registry(folder)
    assert registry.version("net").label == "v2"
    assert registry.version("net").created < registry.version("net:v1").created
