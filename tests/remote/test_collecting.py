"""`ckpt gc --remote`: what no version there needs goes, and nothing else, whoever pushes meanwhile.

The oracle is `tests.remote.plain_checker`, which shares no code with `ckpt`.
"""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import ckpt
from ckpt.errors import ConflictError, IntegrityError, UsageError
from ckpt.ops.gc import Garbage, gc_remote
from ckpt.registry.registry import Registry
from ckpt.remote import collecting, remotes
from ckpt.remote.address import open_bucket
from ckpt.remote.bucket import Bucket
from tests.remote.plain_checker import get_of, index_of, problems
from tests.remote.pusher import shared, write
from tests.remote.test_many_pushers import pushed_by_all, tensors_of

NOW = timedelta()
PLACES = "objects", "packs", "manifests", "ckpt"
KINDS = pytest.mark.parametrize("kind", ["folder_url", "s3", "sftp"])


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(kind))


@pytest.fixture
def bucket(url: str) -> Bucket:
    return open_bucket(url)


@pytest.fixture
def registry(url: str, tmp_path: Path) -> Registry:
    """`net` v1, which is on the remote, and v2, which is not."""
    (tmp_path / "ann").mkdir()
    registry = Registry(tmp_path / "ann")
    ckpt.add_remote("origin", url, registry=registry)
    registered(registry, b"one")
    ckpt.push(registry=registry)
    registered(registry, b"two")
    return registry


def registered(registry: Registry, data: bytes) -> None:
    path = registry.folder / "net.safetensors"
    write(path, *shared(), data.ljust(5000))
    ckpt.register(path, name="net", registry=registry)


def paths(bucket: Bucket) -> set[str]:
    listed = (stat.path for kind in PLACES for stat in bucket.list(kind))
    return {path for path in listed if not path.startswith("ckpt/next/")}  # the links of SFTP


class Interrupted:
    """A bucket, before whose index is replaced for the first time something else happens."""

    def __init__(self, bucket: Bucket, happens: Callable[[], object]) -> None:
        self._bucket, self._happens = bucket, [happens]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bucket, name)

    def replace(self, path: str, data: bytes, tag: str) -> bool:
        if path == "registry.json" and self._happens:
            self._happens.pop()()
        return self._bucket.replace(path, data, tag)


def kill_push(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Push, and end before the index is written."""

    def killed() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(remotes, "open_bucket", lambda url: Interrupted(open_bucket(url), killed))
        with pytest.raises(KeyboardInterrupt):
            ckpt.push(registry=registry)


@pytest.fixture
def leftover(registry: Registry, url: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What a push of v2 left that was killed before it wrote the index."""
    before = paths(open_bucket(url))
    kill_push(registry, monkeypatch)
    return paths(open_bucket(url)) - before


@KINDS
def test_leftovers_of_a_push_go_once_they_are_old(
    url: str, bucket: Bucket, registry: Registry, leftover: set[str]
) -> None:
    before = paths(bucket)
    assert len(leftover) == 2, "a pack and its manifest"
    young = gc_remote(registry=registry)
    assert (young.is_empty, len(young.young), paths(bucket)) == (True, 2, before)
    shown = gc_remote(grace=NOW, dry_run=True, registry=registry)
    assert (len(shown.objects), shown.removed, paths(bucket)) == (2, False, before)
    removed = gc_remote(grace=NOW, registry=registry)
    assert {str(each.path) for each in removed.objects} == leftover
    assert paths(bucket) == before - leftover, "and the lock is gone, too"
    assert problems(get_of(url)) == []
    ckpt.push(registry=registry)
    assert problems(get_of(url)) == []
    assert paths(bucket) == before


@KINDS
def test_push_that_found_what_is_collected_sends_it_again(
    url: str, registry: Registry, leftover: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has seen the object and the manifest, and is about to write the index."""
    found: list[Garbage] = []

    def collected() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(remotes, "open_bucket", open_bucket)
            found.append(gc_remote(grace=NOW, registry=registry))

    monkeypatch.setattr(
        remotes, "open_bucket", lambda url: Interrupted(open_bucket(url), collected)
    )
    ckpt.push(registry=registry)
    assert {str(each.path) for each in found[0].objects} == leftover
    assert problems(get_of(url)) == []
    assert {*index_of(get_of(url))["models"]["net"]["versions"]} == {"v1", "v2"}


@KINDS
def test_removed_versions_go_when_they_are_kept_no_longer(
    url: str, bucket: Bucket, registry: Registry, tmp_path: Path
) -> None:
    ckpt.push(registry=registry)
    ckpt.rm(["net:v1"], registry=registry)
    ckpt.push(registry=registry)
    before = paths(bucket)
    assert gc_remote(grace=NOW, registry=registry).is_empty, "restored for thirty days"
    assert paths(bucket) == before
    gone = gc_remote(grace=NOW, keep_removed=NOW, registry=registry)
    assert [version.ref for version in gone.forgotten] == ["net:v1"]
    assert len(before - paths(bucket)) == 2
    assert problems(get_of(url)) == []
    registered(registry, b"one")
    ckpt.push(registry=registry)
    assert problems(get_of(url)) == []
    assert {*index_of(get_of(url))["models"]["net"]["versions"]} == {"v2", "v3"}, "never v1 again"


@KINDS
def test_one_collects_at_a_time_and_pushes_wait(
    bucket: Bucket, registry: Registry, leftover: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps({"author": "Ben", "host": "b", "began": "now"}).encode()
    bucket.put_new(collecting.LOCK, [text], len(text))
    before = paths(bucket)
    with pytest.raises(ConflictError, match="being collected by Ben on b since now"):
        gc_remote(grace=NOW, registry=registry)
    monkeypatch.setenv("CKPT_REMOTE_SECONDS", "0.2")
    with pytest.raises(ConflictError, match="being collected by Ben"):
        ckpt.push(registry=registry)
    assert paths(bucket) == before
    monkeypatch.setenv("CKPT_REMOTE_SECONDS", "60")
    pushing = threading.Thread(target=lambda: ckpt.push(registry=registry))
    pushing.start()
    bucket.delete(collecting.LOCK)
    pushing.join()
    assert len(ckpt.push(registry=registry).new) == 0, "it was pushed"


@pytest.mark.parametrize("kind", ["folder_url", "sftp"])
@pytest.mark.parametrize("by", [gc_remote, ckpt.push])
@pytest.mark.parametrize("text", [b"{}\n", b"not JSON", b""], ids=["json", "text", "empty"])
def test_lock_of_a_collection_that_crashed_is_taken_over(
    text: bytes, by: Callable[..., object], bucket: Bucket, registry: Registry, tmp_path: Path
) -> None:
    bucket.put_new(collecting.LOCK, [text], len(text))
    old = time.time() - 4000
    os.utime(tmp_path / "a remote" / collecting.LOCK, (old, old))
    by(registry=registry)
    assert bucket.head(collecting.LOCK) is None


@pytest.mark.parametrize("kind", ["folder_url"])
def test_push_that_waits_asks_once_whether_the_lock_is_stale(
    bucket: Bucket, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer costs a write, a look and a removal on the remote."""
    asked = []

    class Watched(Interrupted):
        def put_new(self, path: str, chunks: Iterable[bytes], nbytes: int) -> bool:
            asked.append(path)
            return self._bucket.put_new(path, chunks, nbytes)

    bucket.put_new(collecting.LOCK, [b"{}"], 2)
    monkeypatch.setattr(remotes, "open_bucket", lambda url: Watched(open_bucket(url), lambda: None))
    monkeypatch.setattr(collecting, "_POLL", 0.01)
    monkeypatch.setenv("CKPT_REMOTE_SECONDS", "0.2")
    with pytest.raises(ConflictError, match="being collected"):
        ckpt.push(registry=registry)
    assert [path.split("/")[1] for path in asked] == ["probe"]


@pytest.mark.parametrize("kind", ["folder_url"])
def test_push_asks_once_for_a_lock_that_is_not_there(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Watched(Interrupted):
        def get(self, path: str, most: int) -> Any:
            asked.append(path)
            return self._bucket.get(path, most=most)

    monkeypatch.setattr(remotes, "open_bucket", lambda url: Watched(open_bucket(url), lambda: None))
    ckpt.push(registry=registry)
    assert asked.count(collecting.LOCK) == 1


@pytest.mark.parametrize("kind", ["folder_url"])
@pytest.mark.parametrize("text", [b"not JSON", b"", b"[]"], ids=["text", "empty", "list"])
def test_lock_that_something_else_wrote_over_stays(
    text: bytes, bucket: Bucket, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unneeded(*arguments: Any) -> Any:
        bucket.overwrite(collecting.LOCK, [text], len(text))
        return real(*arguments)

    real = collecting._unneeded
    monkeypatch.setattr(collecting, "_unneeded", unneeded)
    assert gc_remote(registry=registry).removed
    found = bucket.get(collecting.LOCK, most=100)
    assert found is not None
    assert found[0] == text


@KINDS
def test_collection_whose_lock_was_taken_removes_nothing_more(
    bucket: Bucket, registry: Registry, leftover: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unneeded(*arguments: Any) -> Any:
        found = real(*arguments)
        bucket.overwrite(collecting.LOCK, [b'{"id": "other"}'], 15)
        return found

    real = collecting._unneeded
    monkeypatch.setattr(collecting, "_unneeded", unneeded)
    with pytest.raises(ConflictError, match="another process took over"):
        gc_remote(grace=NOW, registry=registry)
    assert leftover <= paths(bucket)
    assert bucket.head(collecting.LOCK) is not None, "it is the other one's"


@KINDS
def test_nothing_goes_where_a_manifest_cannot_be_read(
    bucket: Bucket, registry: Registry, leftover: set[str], url: str, tmp_path: Path
) -> None:
    ckpt.clone(url, tmp_path / "ben")
    manifest = index_of(get_of(url))["models"]["net"]["versions"]["v1"]["manifest"]
    other = Registry(tmp_path / "ben")
    for stored in [*other.store.manifests()]:
        stored.path.unlink()
    name = manifest.removeprefix("sha256:")
    path = f"manifests/{name[:2]}/{name[2:]}"
    bucket.overwrite(path, [b"rotten"], 6)
    before = paths(bucket)
    with pytest.raises(IntegrityError, match=r"net:v1: its manifest is missing or damaged"):
        gc_remote(grace=NOW, registry=other)
    assert paths(bucket) == before


@pytest.mark.parametrize("kind", ["folder_url"])
def test_index_that_git_keeps_is_refused(url: str, tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    registry = Registry(tmp_path / "ann")
    registered(registry, b"one")
    ckpt.add_remote("origin", url, index="git", registry=registry)
    with pytest.raises(UsageError, match="git keeps its index"):
        gc_remote(registry=registry)


@pytest.mark.long
@KINDS
def test_many_push_beside_collections(url: str, registry: Registry, tmp_path: Path) -> None:
    """With no grace at all, what a push has just sent is removed again and again."""
    ckpt.push(registry=registry)
    done, collections = threading.Event(), []

    def collect() -> None:
        while not done.wait(0.3):
            collections.append(gc_remote(grace=NOW, registry=registry))

    collecting_thread = threading.Thread(target=collect)
    collecting_thread.start()
    try:
        acknowledged: Iterable[str] = pushed_by_all(url, tmp_path, 4, 5)
    finally:
        done.set()
        collecting_thread.join()
    assert problems(get_of(url)) == []
    tensors = tensors_of(get_of(url), url, tmp_path / "new")
    assert tensors == Counter([*acknowledged, "one", "two"])
    assert any(each.objects for each in collections), "something was there to collect"
