"""Garbage of a remote: what no version there needs is removed, while others push.

A collection creates `LOCK` if it is absent, then rewrites the index, which gives it another tag.
A push reads the index, then waits while there is a lock, and only then looks what is there. So
whatever a push has seen and a collection removes, its write of the index is refused, or comes
before that of the collection, which then keeps what the version needs. `docs/remote_model.py`
tries all orders of the steps.

Laws: what the index names, and what is younger than the grace, is never removed; nothing is removed
unless every reference could be read, nor after the lock was lost.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ckpt.errors import ConflictError, IntegrityError, RefError, RemoteError, UsageError
from ckpt.io import digest
from ckpt.io.documents.strict_json import parse
from ckpt.io.who import who
from ckpt.registry.index import Index
from ckpt.registry.manifest import Manifest
from ckpt.registry.needs.forgotten import forgotten, without
from ckpt.registry.registry import Registry
from ckpt.registry.store.listing import StoredObject
from ckpt.registry.version import Version
from ckpt.remote.bucket import Bucket, new_id
from ckpt.remote.merging import read_theirs, written
from ckpt.remote.object_store import patience
from ckpt.remote.objects.parallel import in_parallel
from ckpt.remote.objects.parcels import KINDS, parcels_of, path_of
from ckpt.remote.objects.receiving import MOST_MANIFEST
from ckpt.remote.remotes import Remote

LOCK = "ckpt/collecting"
GRACE = timedelta(days=1)
_STALE = timedelta(hours=1)  # a lock of this age belongs to a collection that has crashed
_ATTEMPTS = 64
_BATCH = 256  # objects; the lock is renewed before each batch
_POLL = 0.5  # seconds
_MOST_LOCK = 1 << 12  # bytes
_STORED = re.compile(r"(objects|packs|manifests)/([0-9a-f]{2})/([0-9a-f]{62})")


@dataclass(frozen=True, slots=True)
class Collected:
    """What no version of a remote needs.

    Attributes:
        forgotten: Versions that were removed longer ago than they are kept.
        old: Objects and manifests that are removed, manifests first.
        young: Those that are kept since they are recent.
    """

    forgotten: tuple[Version, ...]
    old: tuple[StoredObject, ...]
    young: tuple[StoredObject, ...]


def collect(
    registry: Registry, remote: Remote, *, kept: timedelta, grace: timedelta, dry_run: bool
) -> Collected:
    """Remove what no version of a remote needs, and return it.

    Args:
        registry: A registry with this remote; what it has of the manifests is not read again.
        remote: The remote.
        kept: How long removed versions can still be restored.
        grace: The least age of what is removed, by the clock of the remote.
        dry_run: Remove nothing and write nothing; ages are by this machine's clock.

    Raises:
        UsageError: Git keeps the index.
        ConflictError: Another collection runs, or takes over.
        IntegrityError: A manifest that the index names is missing or damaged.
        RemoteError: The remote refuses a request or cannot be reached.
    """
    if remote.index == "git":
        raise UsageError(
            f"{remote.name}: git keeps its index, so what other branches need is not known there"
        )
    bucket = remote.bucket()
    if dry_run:
        theirs, _ = _expect_index(remote, bucket)
        gone = tuple(forgotten(theirs, kept, datetime.now(UTC)))
        old, young = _unneeded(registry, bucket, without(theirs, gone), time.time(), grace)
        return Collected(gone, old, young)
    with _locked(remote, bucket) as lock:
        now = datetime.fromtimestamp(lock.began, UTC)
        index, gone = _forget(remote, bucket, now, kept)
        old, young = _unneeded(registry, bucket, index, lock.began, grace)
        for begin in range(0, len(old), _BATCH):
            lock.renew()
            _remove(bucket, old[begin : begin + _BATCH])
    return Collected(gone, old, young)


def _remove(bucket: Bucket, batch: Iterable[StoredObject]) -> None:
    """Remove manifests, then objects: no manifest is left without its objects."""
    paths: dict[bool, list[str]] = {True: [], False: []}
    for each in batch:
        paths[each.is_manifest].append(each.path.as_posix())
    for some in paths.values():
        in_parallel(bucket.delete, some)


def wait_for_collection(remote: Remote, bucket: Bucket) -> None:
    """Return when no collection runs: after the index was read, before anything is looked for.

    Raises:
        ConflictError: One runs for longer than requests are repeated.
    """
    end = time.monotonic() + patience()
    found = bucket.get(LOCK, most=_MOST_LOCK)
    if found is not None and _is_stale(bucket):  # asked once: no wait is as long
        mine = _text({"id": new_id()})  # over SFTP no content may come twice
        if bucket.replace(LOCK, mine, found[1]):
            bucket.delete(LOCK)  # and its collection, should it go on, cannot renew it
        found = bucket.get(LOCK, most=_MOST_LOCK)
    while found is not None:
        if time.monotonic() > end:
            raise _held(remote, found[0])
        time.sleep(_POLL)
        found = bucket.get(LOCK, most=_MOST_LOCK)


@dataclass(slots=True)
class _Lock:
    """The lock, which is this process's.

    Attributes:
        began: When it was taken, in seconds since 1970, by the clock of the remote.
        tag: That of its content.
    """

    remote: Remote
    bucket: Bucket
    text: Mapping[str, str]
    began: float = 0.0
    tag: str = ""

    def renew(self) -> None:
        """Make the lock young again.

        Raises:
            ConflictError: It is another process's now.
        """
        data = _text({**self.text, "renewed": new_id()})
        if not self.bucket.replace(LOCK, data, self.tag) and self._content() != data:
            raise ConflictError(
                f"{self.remote.name}: another process took over; the rest was left",
                hint="run it again",
            )
        self._content()

    def take(self) -> None:
        """Take it.

        Raises:
            ConflictError: Another process has it.
        """
        data = _text(self.text)
        self.bucket.put_new(LOCK, [data], len(data))
        found = self.bucket.get(LOCK, most=_MOST_LOCK)
        if found is not None and found[0] != data and _is_stale(self.bucket):
            self.bucket.replace(LOCK, data, found[1])
        if self._content() != data:
            raise _held(self.remote, found[0] if found else b"")
        stat = self.bucket.head(LOCK)
        self.began = stat.modified if stat else time.time()

    def _content(self) -> bytes | None:
        found = self.bucket.get(LOCK, most=_MOST_LOCK)
        self.tag = found[1] if found else ""
        return found[0] if found else None


@contextmanager
def _locked(remote: Remote, bucket: Bucket) -> Iterator[_Lock]:
    """Hold the lock of a remote.

    After a request without a reply it stays until it is stale: the request may still happen.
    """
    by = who()
    began = datetime.now(UTC).isoformat(timespec="seconds")
    lock = _Lock(
        remote,
        bucket,
        {"id": new_id(), "author": by["author"], "host": by["host"], "began": began},
    )
    lock.take()
    try:
        yield lock
    except RemoteError:
        raise
    except BaseException:
        _release(lock)
        raise
    _release(lock)


def _release(lock: _Lock) -> None:
    found = lock.bucket.get(LOCK, most=_MOST_LOCK)
    if found is not None and _fields(found[0]).get("id") == lock.text["id"]:
        lock.bucket.delete(LOCK)


def _is_stale(bucket: Bucket) -> bool:
    """Whether the lock is older than `_STALE`, by the clock of the remote."""
    path = f"ckpt/probe/{new_id()}"
    try:
        bucket.put_new(path, [b"now"], 3)
        now, lock = bucket.head(path), bucket.head(LOCK)
    finally:
        bucket.delete(path)
    return bool(now and lock and now.modified - lock.modified > _STALE.total_seconds())


def _held(remote: Remote, data: bytes) -> ConflictError:
    text = _fields(data)
    whose = ""
    if {"author", "host", "began"} <= text.keys():
        whose = f" by {text['author']} on {text['host']} since {text['began']}"
    return ConflictError(
        f"{remote.name}: its garbage is being collected{whose}",
        hint="try again; after an hour the lock of a process that crashed does not count",
    )


def _text(fields: Mapping[str, str]) -> bytes:
    return json.dumps(fields).encode("ascii") + b"\n"


def _fields(data: bytes) -> dict[str, Any]:
    """The fields of a lock; none if its text is not a JSON object."""
    try:
        fields = parse(data.decode("utf-8"))
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _expect_index(remote: Remote, bucket: Bucket) -> tuple[Index, str]:
    found = read_theirs(remote, bucket)
    if found is None:
        raise RefError(f"{remote.name}: nothing was pushed there")
    return found


def _forget(
    remote: Remote, bucket: Bucket, now: datetime, kept: timedelta
) -> tuple[Index, tuple[Version, ...]]:
    """Rewrite the index without versions that were removed long ago.

    It is written even if it names the same: whoever has read it before is refused.
    """
    failed: RemoteError | None = None
    for _ in range(_ATTEMPTS):
        theirs, tag = _expect_index(remote, bucket)
        gone = tuple(forgotten(theirs, kept, now))
        index = replace(without(theirs, gone), serial=theirs.serial + 1, write_id=new_id())
        try:
            if written(remote, bucket, index, tag):
                return index, gone
        except RemoteError as error:
            failed = error  # the next attempt writes it once more, which does no harm
    raise failed or ConflictError(
        f"{remote.name}: others changed its registry.json {_ATTEMPTS} times meanwhile",
        hint="nothing was removed: run it again",
    )


def _unneeded(
    registry: Registry, bucket: Bucket, index: Index, now: float, grace: timedelta
) -> tuple[tuple[StoredObject, ...], tuple[StoredObject, ...]]:
    """The objects and manifests that no version needs: old ones, and those that are kept yet.

    What a push has just sent, whose index is yet to come, keeps its objects, however old.
    """
    stored = [each for kind in KINDS for each in _stored(bucket, kind)]
    young = {each.digest for each in stored if now - each.modified < grace.total_seconds()}
    there = {each.digest for each in stored if each.is_manifest}
    users: dict[str, str] = {}
    for version in index.every_version():
        users |= dict.fromkeys(there.intersection(version.also), version.ref)
        users[version.manifest] = version.ref
    needed = _with_objects(registry, bucket, users)
    pushed = dict.fromkeys((young & there) - needed, "a push")
    kept = young | _with_objects(registry, bucket, pushed)
    unneeded = [each for each in stored if each.digest not in needed]
    old = tuple(each for each in unneeded if each.digest not in kept)
    return old, tuple(each for each in unneeded if each.digest in kept)


def _stored(bucket: Bucket, kind: str) -> Iterator[StoredObject]:
    for stat in bucket.list(kind):
        found = _STORED.fullmatch(stat.path)
        if found is not None:
            name = f"sha256:{found[2]}{found[3]}"
            yield StoredObject(
                name, found[1] == "manifests", Path(stat.path), stat.nbytes, stat.modified
            )


def _with_objects(registry: Registry, bucket: Bucket, users: Mapping[str, str]) -> set[str]:
    """Manifests, and the objects that they name, with the packs of these.

    Args:
        registry: What its store has is not read from the remote.
        bucket: The remote.
        users: Who needs each manifest, by its digest.

    Raises:
        IntegrityError: One is missing or damaged.
    """

    def named(name: str) -> set[str]:
        if registry.store.has(name, "manifests"):
            return _parts(registry.store.manifest(name))
        found = bucket.get(path_of(name, "manifests"), most=MOST_MANIFEST)
        if found is None or digest.of_bytes(found[0]) != name:
            raise IntegrityError(
                f"{users[name]}: its manifest is missing or damaged on the remote; nothing was "
                "removed",
                hint="ckpt push  sends it again, where it is here",
            )
        return _parts(Manifest.from_bytes(found[0]))

    return users.keys() | {each for some in in_parallel(named, users).values() for each in some}


def _parts(manifest: Manifest) -> set[str]:
    """Its objects, wherever they are, and its packs."""
    objects = manifest.objects()
    return {*objects, *(parcel.name for parcel in parcels_of(objects))}
