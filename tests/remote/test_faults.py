"""Cases 40 to 42 of docs/faults.md: networks and servers that fail, lie or serve old states.

The oracle is `tests.remote.plain_checker`, which shares no code with `ckpt`.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import ckpt
from ckpt.errors import CkptError, ConflictError, IntegrityError, RemoteError
from ckpt.registry.registry import Registry
from ckpt.remote.probe import CREATES, REPLACES
from tests.effort import long_but, thinned
from tests.remote.plain_checker import get_of, index_of, problems
from tests.remote.proxy import Fault, Proxy, Request


def registered(folder: Path, *seeds: int) -> Registry:
    """`net` with a version for each seed."""
    folder.mkdir(exist_ok=True)
    registry = Registry(folder)
    for seed in seeds:
        torch.save({"w": torch.full((20_000,), float(seed))}, folder / "net.pt")
        ckpt.register(folder / "net.pt", registry=registry)
    return registry


@pytest.fixture
def ann(proxy: Proxy, s3: str, tmp_path: Path) -> Registry:
    """Ann's registry, with v1 pushed and v2 not yet."""
    registry = registered(tmp_path / "ann", 1)
    ckpt.add_remote("origin", s3, registry=registry)
    ckpt.push(registry=registry)
    registered(tmp_path / "ann", 2)
    proxy.seen.clear()
    return registry


def pushed(s3: str) -> set[str]:
    return {*index_of(get_of(s3))["models"]["net"]["versions"]}


def puts(kind: str, fault: Fault, *, first: int = 1, last: int = 1) -> Callable[..., Fault | None]:
    def rule(request: Request) -> Fault | None:
        if request.method != "PUT" or f"/registry/{kind}" not in request.path:
            return None
        return fault if first <= request.number <= last else None

    return rule


PLACES = ["objects", "manifests", "registry.json"]
FAULTS = {
    "503": Fault(status=503, happens=False),
    "409": Fault(status=409, happens=False),
    "412": Fault(status=412, happens=False),
    "no answer": Fault(happens=False, drops=True),
    "lost answer": Fault(drops=True),
    "503 after it happened": Fault(status=503),
}


@pytest.mark.parametrize("place", long_but(["registry.json"], PLACES))
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_40_one_failed_request_is_repeated(
    ann: Registry, proxy: Proxy, s3: str, place: str, fault: str
) -> None:
    """A write that the server refused, or answered to nobody: the push succeeds all the same."""
    proxy.rule = puts(place, FAULTS[fault])
    try:
        done = ckpt.push(registry=ann)
    except RemoteError:
        # A refusal as existing of what is not there is not believed; the push can be repeated.
        assert fault in ("409", "412")
        done = ckpt.push(registry=ann)
    assert proxy.faults
    assert [version.ref for version in done.new] == ["net:v2"]
    proxy.rule = lambda request: None
    assert (pushed(s3), problems(get_of(s3))) == ({"v1", "v2"}, [])


def test_fault_40_push_that_fails_leaves_the_remote_as_it_was(
    ann: Registry, proxy: Proxy, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request of a push fails for good: exit code 7, and the index names no absent object."""
    monkeypatch.setenv("CKPT_REMOTE_SECONDS", "0.1")
    ckpt.push(registry=ann)
    requests = [*proxy.seen]
    for place in thinned(range(len(requests))):
        registered(ann.folder, 100 + place)
        proxy.seen.clear()
        proxy.rule = lambda _, most=place: (
            Fault(503, happens=False) if len(proxy.seen) > most else None
        )
        with pytest.raises(RemoteError) as caught:
            ckpt.push(registry=ann)
        assert caught.value.exit_code == 7
        assert "s3cr3t" not in str(caught.value)
        proxy.rule = lambda _: None
        assert problems(get_of(s3)) == []
    assert len(ckpt.push(registry=ann).new) == len([*thinned(range(len(requests)))])
    assert problems(get_of(s3)) == []


@pytest.mark.parametrize("cut", [0, 1, 40_000, 79_999])
def test_fault_40_body_that_is_cut_is_never_stored(
    ann: Registry, proxy: Proxy, s3: str, tmp_path: Path, cut: int
) -> None:
    """A download that ends early goes on, or is refused; nothing of it is kept as an object."""
    ckpt.push(registry=ann)
    ckpt.clone(s3, tmp_path / "bob")
    bob = Registry(tmp_path / "bob")
    proxy.rule = lambda request: Fault(cut=cut) if is_object(request) else None
    if cut > 1:  # each request brings more of it
        assert ckpt.pull("v2", registry=bob).objects == 1
    else:
        with pytest.raises((RemoteError, IntegrityError)) as caught:
            ckpt.pull("v2", registry=bob)
        assert caught.value.exit_code in (4, 7)
        assert not [*(tmp_path / "bob" / ".ckpt" / "objects").rglob("?" * 62)]
        proxy.rule = lambda request: None
        assert ckpt.pull("v2", registry=bob).objects == 1
    assert proxy.faults
    (path,) = (tmp_path / "bob" / ".ckpt" / "objects").rglob("?" * 62)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name


def is_object(request: Request) -> bool:
    return request.method == "GET" and "/registry/objects/" in request.path


@pytest.mark.parametrize("body", [b"", b"x" * 80_000, b"x" * 90_000], ids=["empty", "same", "more"])
@pytest.mark.parametrize("kind", ["objects", "manifests"])
def test_fault_40_wrong_bytes_are_refused(
    ann: Registry, proxy: Proxy, s3: str, tmp_path: Path, kind: str, body: bytes
) -> None:
    ckpt.push(registry=ann)
    get = get_of(s3)
    path = next(r.path for r in proxy.seen if r.method == "PUT" and f"/{kind}/" in r.path)
    overwrite(s3, path.partition("/registry/")[2], body)
    with pytest.raises(IntegrityError, match="damaged"):
        ckpt.clone(s3, tmp_path / "bob", every=True)
    assert not (tmp_path / "bob").exists()
    assert problems(get) != []


def overwrite(s3: str, path: str, body: bytes) -> None:
    import os

    import boto3

    bucket, _, prefix = s3.removeprefix("s3://").partition("/")
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.put_object(Bucket=bucket, Key=f"{prefix}/{path}", Body=body)


def test_fault_40_damaged_object_of_another_size_is_replaced_by_a_push(
    ann: Registry, proxy: Proxy, s3: str
) -> None:
    """What an upload of another tool left under the name of an object."""
    name = next(iter(ann.manifest(ann.version("v2")).objects())).removeprefix("sha256:")
    overwrite(s3, f"objects/{name[:2]}/{name[2:]}", b"half")
    ckpt.push(registry=ann)
    assert problems(get_of(s3)) == []


@pytest.mark.parametrize("ignored", [CREATES, REPLACES])
def test_fault_40_endpoint_that_ignores_conditions_is_refused(
    proxy: Proxy, s3: str, tmp_path: Path, ignored: str
) -> None:
    registry = registered(tmp_path / "ann", 1)
    kinds = {CREATES: 1, REPLACES: 3}  # the second and the last write of the probe

    def rule(request: Request) -> Fault | None:
        is_it = request.method == "PUT" and request.number > kinds[ignored]
        return Fault(ignores=True) if is_it else None

    proxy.rule = rule
    with pytest.raises(RemoteError) as caught:
        ckpt.add_remote("origin", s3, registry=registry)
    assert ignored in str(caught.value)
    assert "--unsafe" in str(caught.value.hint)
    assert ckpt.remotes(registry=registry) == ()
    assert ignored in ckpt.add_remote("origin", s3, unsafe=True, registry=registry).unsafe


def test_fault_40_pusher_who_is_always_too_late_gives_up(
    ann: Registry, proxy: Proxy, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ckpt.remote.pushing.ATTEMPTS", 3)
    proxy.rule = puts("registry.json", Fault(status=412, happens=False), last=99)
    with pytest.raises(ConflictError) as caught:
        ckpt.push(registry=ann)
    assert caught.value.exit_code == 6
    assert pushed(s3) == {"v1"}


HOSTILE = {
    "a path as a name": lambda index: index["models"].update({"../x": index["models"]["net"]}),
    "a path as a digest": lambda index: line(index).update(manifest="sha256:../../../etc/passwd"),
    "a huge size": lambda index: line(index).update(size=1 << 70),
    "another content": lambda index: line(index).update(content=f"sha256:{'0' * 64}"),
    "an absent manifest": lambda index: line(index).update(manifest=f"sha256:{'0' * 64}"),
    "escapes": lambda index: line(index).update(made_by="\x1b[31m"),
    "a newer schema": lambda index: index.update(schema=99),
    "no models": lambda index: index.pop("models"),
}


def line(index: dict) -> dict:
    return index["models"]["net"]["versions"]["v2"]


@pytest.mark.parametrize("case", HOSTILE)
def test_fault_41_hostile_index_is_refused_like_any_other(
    ann: Registry, s3: str, tmp_path: Path, case: str
) -> None:
    ckpt.push(registry=ann)
    index = index_of(get_of(s3))
    HOSTILE[case](index)
    overwrite(s3, "registry.json", json.dumps(index).encode())
    before = sorted(tmp_path.rglob("*"))
    if case == "escapes":
        ckpt.clone(s3, tmp_path / "bob")
        return  # its text is escaped by what prints it
    with pytest.raises(IntegrityError) as caught:
        ckpt.clone(s3, tmp_path / "bob")
    assert caught.value.exit_code == 4
    assert sorted(tmp_path.rglob("*")) == before


def test_fault_41_huge_index_is_not_read(ann: Registry, proxy: Proxy, s3: str) -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 1 << 40

    proxy.rule = lambda request: (
        Fault(body=Huge(b"{")) if request.is_index and request.method == "GET" else None
    )
    with pytest.raises(RemoteError, match="the limit is"):
        ckpt.fetch(registry=ann)


def test_fault_42_older_index_is_refused_with_both_numbers(
    ann: Registry, proxy: Proxy, s3: str, tmp_path: Path
) -> None:
    """A mirror that is behind, or a backup that somebody restored."""
    ckpt.clone(s3, tmp_path / "bob")
    bob = Registry(tmp_path / "bob")
    old = get_of(s3)("registry.json")
    ckpt.push(registry=ann)
    ckpt.fetch(registry=bob)
    proxy.rule = lambda request: (
        Fault(body=old) if request.is_index and request.method == "GET" else None
    )
    before = (tmp_path / "bob" / "registry.json").read_bytes()
    for act in (ckpt.fetch, ckpt.push, ckpt.pull):
        with pytest.raises(IntegrityError, match=r"serves write 1 .*; write 2 was seen before"):
            act(registry=bob)
    assert (tmp_path / "bob" / "registry.json").read_bytes() == before
    proxy.rule = lambda request: None
    assert pushed(s3) == {"v1", "v2"}


def test_fault_42_other_history_of_the_same_length_is_refused(
    ann: Registry, proxy: Proxy, s3: str
) -> None:
    index = index_of(get_of(s3))
    overwrite(s3, "registry.json", json.dumps({**index, "write_id": "0" * 16}).encode())
    with pytest.raises(IntegrityError, match="another one; write 1 was seen before"):
        ckpt.fetch(registry=ann)


def test_errors_of_remotes_are_ours(
    ann: Registry, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a server answers, it is a `CkptError` with a code of its own."""
    monkeypatch.setenv("CKPT_REMOTE_SECONDS", "0.1")
    for status in (301, 400, 401, 403, 404, 418, 500):
        proxy.rule = lambda _, status=status: Fault(status=status, happens=False)
        with pytest.raises(CkptError) as caught:
            ckpt.fetch(registry=ann)
        assert caught.value.exit_code in (2, 4, 7)
