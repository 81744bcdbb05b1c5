"""Many processes push to one model at once, through a network that fails: nothing is lost.

The oracle is `tests.remote.plain_checker`, which shares no code with `ckpt`.
"""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import ckpt
from ckpt.registry.registry import Registry
from ckpt.remote.address import open_bucket
from tests.effort import PATIENCE, by_effort
from tests.remote.plain_checker import get_of, index_of, problems
from tests.remote.proxy import Fault, Proxy, Request

PUSHER = Path(__file__).with_name("pusher.py")
ROOT = Path(__file__).parent.parent.parent
# What every tenth write of an index gets, in turn, and every fortieth request of another kind.
BAD_DAYS = (
    Fault(drops=True),
    Fault(status=412, happens=False),
    Fault(status=503, happens=False),
    Fault(status=409, happens=False),
    Fault(status=503),
)


def bad_network(request: Request) -> Fault | None:
    every = 3 if request.is_index and request.method == "PUT" else 40
    if request.number % every:
        return None
    fault = BAD_DAYS[request.number // every % len(BAD_DAYS)]
    if request.method != "PUT":  # only a write has a condition
        return Fault(status=503, happens=False)
    return fault


@pytest.fixture
def proxy(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """As of all tests, but many pushers wait longer for each other."""
    monkeypatch.setenv("CKPT_REMOTE_SECONDS", "20")
    return proxy


def pushed_by_all(url: str, folder: Path, processes: int, pushes: int) -> list[str]:
    """Run the pushers; the tensors of the acknowledged pushes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(
            [sys.executable, PUSHER, url, folder / f"p{number}", f"p{number}", str(pushes)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    acknowledged = []
    for each in running:
        out, err = each.communicate(timeout=4 * PATIENCE)
        assert each.returncode == 0, err
        acknowledged += out.splitlines()
    return acknowledged


def tensors_of(get: object, url: str, folder: Path) -> Counter[str]:
    """The tensors of all versions of the model, read as a new colleague does."""
    ckpt.clone(url, folder, every=True)
    registry = Registry(folder)
    found: Counter[str] = Counter()
    for version in registry.versions("net"):
        source = registry.source(version)
        found[source.read(source.size - 5000, 5000).decode().strip()] += 1
    return found


MANY = by_effort((8, 10), (8, 10), (16, 20))
SIZES = [(3, 3), pytest.param(MANY, marks=pytest.mark.long)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]} x {size[1]}")
@pytest.mark.parametrize("kind", ["folder", "s3", pytest.param("sftp", marks=pytest.mark.long)])
def test_fault_40_many_pushers_lose_and_double_nothing(
    kind: str, size: tuple[int, int], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if kind == "s3":
        proxy, url = request.getfixturevalue("proxy"), request.getfixturevalue("s3")
    elif kind == "sftp":
        proxy, url = None, request.getfixturevalue("sftp")
    else:
        proxy, url = None, (tmp_path / "remote").as_uri()
    (tmp_path / "first").mkdir()
    first = Registry(tmp_path / "first")
    ckpt.add_remote("origin", url, registry=first)
    ckpt.push(registry=first)
    if proxy:
        proxy.rule = bad_network
    processes, pushes = size
    acknowledged = pushed_by_all(url, tmp_path, processes, pushes)
    if proxy:
        proxy.rule = lambda _: None
        assert proxy.faults
    get = get_of(url)
    assert problems(get) == []
    numbers = {int(label[1:]) for label in index_of(get)["models"]["net"]["versions"]}
    assert len(numbers) == processes * pushes == len({*acknowledged})
    tensors = tensors_of(get, url, tmp_path / "new")
    assert tensors == Counter(acknowledged)
    packs = [stat.path for stat in open_bucket(url).list("packs")]
    assert len(packs) >= len(numbers) + 1, "one of each version, and one of all"
