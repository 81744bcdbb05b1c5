"""Small objects travel in packs: few requests, and all that holds for objects holds for them.

The oracle is `tests.remote.plain_checker`, which shares no code with `ckpt`; requests are counted
by a proxy before the server.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

import ckpt
from ckpt.errors import AbsentError, IntegrityError, RemoteError
from ckpt.ops.gc import gc_remote
from ckpt.registry.registry import Registry
from ckpt.remote import remotes
from ckpt.remote.address import open_bucket
from ckpt.remote.objects import parcels
from ckpt.rules.document import read_rules
from tests.effort import thinned
from tests.remote import plain_checker
from tests.remote.plain_checker import get_of, index_of, problems
from tests.remote.proxy import Fault, Proxy, Request
from tests.remote.test_collecting import Interrupted, kill_push

NOW = timedelta()
SHORTER = read_rules([{"drop": "layer059"}, {"rename": "layer060->other"}], name="shorter")
COUNT, NBYTES = 120, 8192
KINDS = pytest.mark.parametrize("kind", ["folder_url", "s3", "azure", "sftp"])
IN_FOLDER = pytest.mark.parametrize("kind", ["folder_url"])


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some ten packs of 120 small tensors."""
    for module in (parcels, plain_checker):
        monkeypatch.setattr(module, "MEAN", 100_000)
        monkeypatch.setattr(module, "MOST", 200_000)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(kind))


def written(folder: Path, changed: int | None = None) -> Path:
    """A file of small tensors, and a large one; of one of them the content may be another."""
    import numpy as np

    draw = np.random.default_rng(0)
    state = {
        f"layer{at:03}.bias": draw.integers(0, 256, NBYTES, dtype=np.uint8) for at in range(COUNT)
    }
    state["large"] = draw.integers(0, 256, 100_000, dtype=np.uint8)
    if changed is not None:
        state[f"layer{changed:03}.bias"] = draw.integers(0, 256, NBYTES, dtype=np.uint8)
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "net.safetensors")
    return folder / "net.safetensors"


def registered(folder: Path, changed: int | None = None) -> Registry:
    path = written(folder, changed)
    registry = Registry(folder)
    ckpt.register(path, name="net", registry=registry)
    return registry


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a registry of `net` v1."""
    return registered(tmp_path_factory.mktemp("template")).folder


@pytest.fixture
def ann(url: str, template: Path, tmp_path: Path) -> Registry:
    """`net` v1, which is on the remote."""
    registry = Registry(shutil.copytree(template, tmp_path / "ann"))
    ckpt.add_remote("origin", url, registry=registry)
    assert ckpt.push(registry=registry).objects == COUNT + 1
    return registry


@pytest.fixture
def bob(ann: Registry, url: str, tmp_path: Path) -> Registry:
    ckpt.clone(url, tmp_path / "bob")
    return Registry(tmp_path / "bob")


def packs(url: str) -> set[str]:
    return {stat.path for stat in open_bucket(url).list("packs")}


def alone(url: str) -> list[str]:
    return [stat.path for stat in open_bucket(url).list("objects")]


@KINDS
def test_small_objects_are_in_packs_and_come_back(ann: Registry, url: str, tmp_path: Path) -> None:
    assert 5 < len(packs(url)) < 30
    assert len(alone(url)) == 1, "the large one"
    assert problems(get_of(url)) == []
    ckpt.clone(url, tmp_path / "bob", every=True)
    bob = Registry(tmp_path / "bob")
    assert [*(tmp_path / "bob").rglob("packs")] == [], "a store has objects alone"
    ckpt.export("net:v1", tmp_path / "out.safetensors", registry=bob)
    assert (tmp_path / "out.safetensors").read_bytes() == (
        tmp_path / "ann" / "net.safetensors"
    ).read_bytes()


@KINDS
def test_push_sends_only_the_packs_that_changed(ann: Registry, url: str) -> None:
    before = packs(url)
    ckpt.rename("net:v1", ["layer=block"], registry=ann)
    assert ckpt.push(registry=ann).objects == 0
    assert packs(url) == before
    registered(ann.folder, changed=60)
    sent = ckpt.push(registry=ann)
    assert 0 < len(packs(url) - before) <= 2
    assert 0 < sent.objects < COUNT / 2
    assert problems(get_of(url)) == []


def counted(proxy: Proxy) -> Counter[str]:
    """The requests by method and kind, such as ``PUT packs``."""
    kinds = (request.path.partition("/registry/")[2].partition("/")[0] for request in proxy.seen)
    return Counter(
        f"{request.method} {kind}" for request, kind in zip(proxy.seen, kinds, strict=True)
    )


@pytest.mark.parametrize("kind", ["s3"])
def test_requests_are_as_many_as_packs(
    proxy: Proxy, ann: Registry, url: str, tmp_path: Path
) -> None:
    number = len(packs(url))
    seen = counted(proxy)
    assert (seen["PUT packs"], seen["PUT objects"], seen["PUT manifests"]) == (number, 1, 1)
    assert sum(seen.values()) < 2 * number + 30, "with those of the probe"
    proxy.seen.clear()
    ckpt.clone(url, tmp_path / "bob", every=True)
    seen = counted(proxy)
    assert (seen["GET packs"], seen["GET objects"]) == (number, 1)
    assert sum(seen.values()) < number + 10
    proxy.seen.clear()
    ckpt.push(registry=ann)
    assert sum(counted(proxy).values()) < 5


@pytest.mark.parametrize("kind", ["s3"])
def test_command_that_needs_a_tensor_fetches_its_pack(
    proxy: Proxy, bob: Registry, url: str, tmp_path: Path
) -> None:
    proxy.seen.clear()
    ckpt.export("net:v1", tmp_path / "out.safetensors", registry=bob)
    seen = counted(proxy)
    assert (seen["GET packs"], seen["GET objects"]) == (len(packs(url)), 1)
    assert load_file(tmp_path / "out.safetensors").keys() == {
        "large",
        *(f"layer{at:03}.bias" for at in range(COUNT)),
    }


@pytest.mark.parametrize("kind", ["s3"])
def test_registry_elsewhere_reads_each_pack_once(
    proxy: Proxy, ann: Registry, url: str, tmp_path: Path
) -> None:
    number = len(packs(url))
    proxy.seen.clear()
    loaded = ckpt.load(f"{url}#net:v1")
    assert counted(proxy)["GET packs"] <= 2 * number
    assert sum(counted(proxy).values()) < 4 * number + 10
    expected = load_file(tmp_path / "ann" / "net.safetensors")
    assert loaded.keys() == expected.keys()
    assert all((loaded[key].numpy() == expected[key]).all() for key in expected)


@KINDS
def test_part_of_a_pack_is_pulled(ann: Registry, bob: Registry) -> None:
    pulled = ckpt.pull("v1", keys=r"^layer0(10|11|80)", registry=bob)
    (manifest,) = [bob.manifest(bob.version("v1"))]
    here = {entry.key for entry in manifest.entries if bob.store.has(str(entry.digest))}
    assert here == {"layer010.bias", "layer011.bias", "layer080.bias"}
    assert pulled.objects == 3
    assert pulled.nbytes == 3 * NBYTES


@KINDS
def test_push_that_was_killed_goes_on(
    ann: Registry, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(ann.folder, changed=60)
    kill_push(ann, monkeypatch)
    assert problems(get_of(url)) == []
    before = packs(url)
    assert ckpt.push(registry=ann).objects == 0, "all were there"
    assert packs(url) == before
    assert {*index_of(get_of(url))["models"]["net"]["versions"]} == {"v1", "v2"}
    assert problems(get_of(url)) == []


@pytest.mark.parametrize(
    "fault",
    [Fault(drops=True), Fault(status=503), Fault(happens=False, drops=True)],
    ids=["lost answer", "503 after it happened", "no answer"],
)
def test_fault_40_lost_reply_to_a_pack(proxy: Proxy, s3: str, tmp_path: Path, fault: Fault) -> None:
    registry = registered(tmp_path / "ann")
    ckpt.add_remote("origin", s3, registry=registry)
    proxy.rule = lambda request: fault if is_put_of_pack(request) and request.number < 3 else None
    ckpt.push(registry=registry)
    assert len(proxy.faults) == 2
    assert problems(get_of(s3)) == []


def is_put_of_pack(request: Request) -> bool:
    return request.method == "PUT" and "/registry/packs/" in request.path


@pytest.mark.parametrize("kind", ["s3"])
def test_fault_40_push_that_fails_at_any_request_names_nothing_absent(
    proxy: Proxy, ann: Registry, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPT_REMOTE_SECONDS", "0.1")
    for place in thinned(range(12)):
        registered(ann.folder, changed=10 * place)
        proxy.seen.clear()
        proxy.rule = lambda _, most=place: (
            Fault(503, happens=False) if len(proxy.seen) > most else None
        )
        with pytest.raises(RemoteError):
            ckpt.push(registry=ann)
        proxy.rule = lambda _: None
        assert problems(get_of(url)) == []
    ckpt.push(registry=ann)
    assert problems(get_of(url)) == []


@KINDS
def test_packs_of_removed_versions_go_and_shared_ones_stay(ann: Registry, url: str) -> None:
    first = packs(url)
    registered(ann.folder, changed=60)
    ckpt.push(registry=ann)
    shared = packs(url)
    ckpt.rm(["net:v1"], registry=ann)
    ckpt.push(registry=ann)
    gone = gc_remote(grace=NOW, keep_removed=NOW, registry=ann)
    assert 0 < len(shared - packs(url)) <= 2
    assert shared - packs(url) < first
    assert {each.path.parts[0] for each in gone.objects} == {"packs", "manifests"}
    assert problems(get_of(url)) == []


@KINDS
def test_push_that_found_packs_that_are_collected_sends_them_again(
    ann: Registry, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted push has left all; the next one finds it, and then it is collected."""
    registered(ann.folder, changed=60)
    happened: list[int] = []

    def collected() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(remotes, "open_bucket", open_bucket)
            happened.append(len(gc_remote(grace=NOW, registry=ann).objects))

    monkeypatch.setattr(
        remotes, "open_bucket", lambda url: Interrupted(open_bucket(url), collected)
    )
    ckpt.push(registry=ann)
    assert happened[0] >= 2, "a pack and the manifest"
    assert problems(get_of(url)) == []
    assert {*index_of(get_of(url))["models"]["net"]["versions"]} == {"v1", "v2"}


@KINDS
def test_evicted_objects_are_those_of_packs_that_are_there(ann: Registry, url: str) -> None:
    (lost, *_) = sorted(packs(url))
    held = open_bucket(url).get(lost, most=1 << 30)
    assert held is not None
    open_bucket(url).delete(lost)
    evicted = ckpt.evict("net:v1", registry=ann)
    assert len(evicted.kept) == len(held[0]) // NBYTES
    assert evicted.objects == COUNT + 1 - len(evicted.kept)
    assert ckpt.check_remote(registry=ann).missing != ()
    open_bucket(url).put_new(lost, [held[0]], len(held[0]))
    assert ckpt.check_remote(registry=ann).missing == ()
    assert ckpt.evict("net:v1", registry=ann).kept == ()
    assert ckpt.pull("net:v1", registry=ann).objects == COUNT + 1


def shortened(registry: Registry) -> None:
    """Make v2, which lacks a tensor of v1, and lose all objects here."""
    ckpt.rename("net:v1", SHORTER, registry=registry)
    shutil.rmtree(registry.store.root / "objects")


@KINDS
def test_version_made_of_one_that_is_elsewhere_is_pushed(
    ann: Registry, bob: Registry, url: str
) -> None:
    """Its packs are others, and what they hold is in the packs of the first."""
    before = packs(url)
    shortened(bob)
    sent = ckpt.push(registry=bob)
    assert sent.objects > 0
    assert 0 < len(packs(url) - before) <= 2
    assert problems(get_of(url)) == []
    ckpt.fetch(registry=ann)
    assert ckpt.pull("net:v2", registry=ann).objects == 0
    assert len(ckpt.load("net:v2", registry=bob)) == COUNT


@IN_FOLDER
def test_version_made_of_one_that_is_elsewhere_is_exported(
    bob: Registry, ann: Registry, tmp_path: Path
) -> None:
    shortened(bob)
    ckpt.export("net:v2", tmp_path / "out.safetensors", registry=bob)
    found, expected = load_file(tmp_path / "out.safetensors"), load_file(written(tmp_path / "x"))
    assert len(found) == len(expected) - 1
    assert (found["other.bias"] == expected["layer060.bias"]).all()


@IN_FOLDER
def test_version_whose_objects_are_nowhere_is_not_pushed(
    ann: Registry, bob: Registry, url: str
) -> None:
    shortened(bob)
    for path in packs(url):
        open_bucket(url).delete(path)
    before = get_of(url)("registry.json")
    with pytest.raises(AbsentError, match="so it cannot be pushed"):
        ckpt.push(registry=bob)
    assert get_of(url)("registry.json") == before


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A push as that of an earlier ckpt, which knows no packs."""
    with monkeypatch.context() as patch:
        patch.setattr(parcels, "SMALL", -1)
        yield patch


@KINDS
def test_objects_that_an_earlier_ckpt_sent_are_found(
    one_by_one: pytest.MonkeyPatch, ann: Registry, url: str, tmp_path: Path
) -> None:
    assert (len(alone(url)), packs(url)) == (COUNT + 1, set())
    one_by_one.undo()
    assert ckpt.check_remote(registry=ann).missing == ()
    assert gc_remote(grace=NOW, registry=ann).is_empty
    ckpt.clone(url, tmp_path / "bob", every=True)
    assert len(ckpt.load("net:v1", registry=Registry(tmp_path / "bob"))) == COUNT + 1
    assert len(ckpt.load(f"{url}#net:v1")) == COUNT + 1 if url.startswith("s3") else True
    assert ckpt.evict("net:v1", registry=ann).objects == COUNT + 1
    registered(ann.folder, changed=60)
    ckpt.push(registry=ann)
    assert problems(get_of(url)) == []


@IN_FOLDER
def test_index_says_that_there_are_packs(ann: Registry, url: str, tmp_path: Path) -> None:
    """An earlier ckpt refuses schema 2, and says that a newer ckpt wrote it."""
    assert index_of(get_of(url))["schema"] == 2
    assert json.loads((ann.folder / "registry.json").read_bytes())["schema"] == 1
    (tmp_path / "other").mkdir()
    other = Registry(tmp_path / "other")
    save_file({"w": load_file(written(tmp_path / "x"))["large"]}, tmp_path / "one.safetensors")
    ckpt.register(tmp_path / "one.safetensors", registry=other)
    plain = (tmp_path / "plain").as_uri()
    ckpt.add_remote("origin", plain, registry=other)
    ckpt.push(registry=other)
    assert index_of(get_of(plain))["schema"] == 1
    ckpt.rm(["net:v1"], registry=ann)
    ckpt.push(registry=ann)
    assert index_of(get_of(url))["schema"] == 2, "packs may be left"
    ckpt.clone(url, tmp_path / "bob")
    assert json.loads((tmp_path / "bob" / "registry.json").read_bytes())["schema"] == 1


def damaged(data: bytes) -> bytes:
    return data[:5] + bytes([data[5] ^ 1]) + data[6:]


@KINDS
@pytest.mark.parametrize("how", [damaged, lambda data: data[:-1]], ids=["a bit", "cut"])
def test_damaged_pack_is_named_and_nothing_of_it_is_believed(
    ann: Registry, bob: Registry, url: str, how: Callable[[bytes], bytes]
) -> None:
    (path, *_) = sorted(packs(url))
    bucket = open_bucket(url)
    found = bucket.get(path, most=1 << 30)
    assert found is not None
    bucket.overwrite(path, [how(found[0])], len(how(found[0])))
    with pytest.raises(IntegrityError, match=rf"is damaged there: {path}, which holds it, has"):
        ckpt.pull("v1", registry=bob)
    assert ckpt.verify(registry=bob).damages == ()
    bucket.overwrite(path, [found[0]], len(found[0]))
    ckpt.pull("v1", registry=bob)


@KINDS
def test_damaged_object_is_repaired_from_a_pack(ann: Registry) -> None:
    entries = ann.manifest(ann.version("v1")).entries
    name = next(str(entry.digest) for entry in entries if entry.key == "layer033.bias")
    path = ann.store.root / "objects" / name[7:9] / name[9:]
    path.chmod(0o644)
    path.write_bytes(b"rotten")
    assert len(ckpt.verify(registry=ann).damages) == 1
    repaired = ckpt.repair_store("origin", registry=ann)
    assert [place for _, place in repaired.taken] == ["origin"]
    assert repaired.left.damages == ()
