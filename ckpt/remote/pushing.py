"""Push: objects, manifests, then the index, by compare-and-swap.

Laws: the index of a remote never names what is not there; of several pushers none loses a version,
whatever requests fail or are answered to nobody. A push that is repeated changes nothing: whether
one has happened is seen in the index, never in a reply.
"""

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ckpt.errors import AbsentError, ConflictError, IntegrityError, RemoteError
from ckpt.io.files import Told, untold
from ckpt.registry.index import Index, Model
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version
from ckpt.remote.bucket import Bucket, new_id
from ckpt.remote.collecting import wait_for_collection
from ckpt.remote.merging import PATH, Fetched, merge_theirs, read_theirs, to_publish, written
from ckpt.remote.objects.parcels import Parcel, parcels_of
from ckpt.remote.objects.sending import absent_manifests, send_manifests, send_objects
from ckpt.remote.remotes import (
    Remote,
    last_seen,
    merging,
    note_seen,
    reserve_numbers,
    reserved_numbers,
)

ATTEMPTS = 64
_SECONDS = 0.05, 2.0  # of waiting after the first conflict, and at most


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push added to the remote.

    Attributes:
        remote: Its name.
        new: The versions that are new there.
        changed: Whether its index was changed.
        objects: The number of objects that were sent.
        nbytes: Their bytes.
        fetched: What the remote had that was new here.
    """

    remote: str
    new: tuple[Version, ...]
    changed: bool
    objects: int = 0
    nbytes: int = 0
    fetched: tuple[Fetched, ...] = ()


@dataclass(slots=True)
class _Sent:
    """The manifests that were sent or found there, and the bytes of the objects that were sent."""

    manifests: set[str] = field(default_factory=set)
    objects: dict[str, int] = field(default_factory=dict)
    packed: bool = False  # whether some objects of them are in packs


def push_versions(
    registry: Registry,
    remote: Remote,
    chosen: Iterable[Version] | None = None,
    told: Told = untold,
) -> Pushed:
    """Add versions to a remote, with their aliases, tags and history.

    Args:
        registry: The registry.
        remote: The remote.
        chosen: The versions; None for all that are not removed.
        told: Called with the bytes sent and in all.

    Raises:
        ConflictError: Both sides moved an alias, or too many others push at the same time.
        RemoteError: The remote refuses a request or cannot be reached.
        IntegrityError: An object is damaged or not here; the index there is as before.
    """
    bucket, sent = remote.bucket(), _Sent()
    wanted = None if chosen is None else {(each.model, each.content) for each in chosen}
    if remote.index == "git":
        return _pushed_for_git(registry, remote, bucket, wanted, told)
    fetched: list[Fetched] = []
    failed: RemoteError | None = None
    for attempt in range(ATTEMPTS):
        _wait(attempt)
        seen = last_seen(registry, remote)
        found = read_theirs(remote, bucket) or _created(registry, remote, bucket)
        if found is None:
            continue
        wait_for_collection(remote, bucket)
        theirs, tag = found
        fetched.append(merge_theirs(registry, remote, bucket, theirs, seen))
        ours = registry.index()
        index = to_publish(ours, theirs, wanted)
        if (index.models, index.unknown) == (theirs.models, theirs.unknown):
            return _result(remote, index, sent, fetched, changed=failed is not None)
        # A manifest that is there proves nothing: its objects may have been collected before it
        # was sent.
        new = {each.manifest: each for each in _new(index, theirs)}
        _send(registry, remote, bucket, new, sent, told)
        index = replace(
            index,
            serial=theirs.serial + 1,
            write_id=new_id(),
            id=theirs.id or ours.id,
            packed=theirs.packed or sent.packed,
        )
        try:
            if written(remote, bucket, index, tag):
                with merging(registry, remote):
                    note_seen(registry, remote, index)
                    left_out = _left_out(registry, remote, ours, index, theirs)
                    reserve_numbers(registry, remote, left_out)
                return _result(remote, index, sent, fetched, changed=True)
        except RemoteError as error:
            failed = error  # whether it happened is seen by the next attempt
    raise failed or ConflictError(
        f"{remote.name}: others changed its registry.json {ATTEMPTS} times meanwhile",
        hint="nothing is lost: push again",
    )


def _pushed_for_git(
    registry: Registry,
    remote: Remote,
    bucket: Bucket,
    wanted: set[tuple[str, str]] | None,
    told: Told,
) -> Pushed:
    """Send what a remote lacks whose index git keeps; nothing is collected there."""
    index, sent = registry.index(), _Sent()
    live = {each.manifest: each for each in _live(index, wanted)}
    absent = absent_manifests(bucket, live)
    _send(registry, remote, bucket, {name: live[name] for name in absent}, sent, told)
    return _result(remote, index, sent, [], changed=False)


def _created(registry: Registry, remote: Remote, bucket: Bucket) -> tuple[Index, str] | None:
    """The empty index that a remote without one gets, unless another process was faster."""
    if last_seen(registry, remote).write_id:
        raise IntegrityError(
            f"{remote.name}: had a registry.json, which is gone now",
            hint=f"ckpt remote rm {remote.name}  and  ckpt remote add  begin again",
        )
    index = Index(id=registry.index().id, write_id=new_id())
    document = index.to_text().encode("utf-8")
    bucket.put_new(PATH, [document], len(document))
    return read_theirs(remote, bucket)


def _send(
    registry: Registry,
    remote: Remote,
    bucket: Bucket,
    versions: Mapping[str, Version],
    sent: _Sent,
    told: Told,
) -> None:
    """Send the objects of manifests, then the manifests, that the bucket lacks."""
    parcels: list[Parcel] = []
    with registry.store.writing():
        for name, version in versions.items():
            parcels += parcels_of(registry.store.manifest(name).objects(f"{version.ref}: "))
        try:
            sent.objects |= send_objects(registry, bucket, parcels, remote.name, told)
        except AbsentError as error:
            raise AbsentError(
                f"{error}, so it cannot be pushed", hint="ckpt pull REF  fetches it first"
            ) from error
        send_manifests(registry.store, bucket, versions)
    sent.manifests |= versions.keys()
    sent.packed |= any(parcel.is_pack for parcel in parcels)


def _live(index: Index, wanted: set[tuple[str, str]] | None) -> Iterator[Version]:
    for model in index.models.values():
        for version in model.versions.values():
            if wanted is None or (version.model, version.content) in wanted:
                yield version


def _new(index: Index, theirs: Index) -> Iterator[Version]:
    """The versions that a remote does not have."""
    known = {version.manifest for version in theirs.every_version()}
    return (each for each in index.every_version() if each.manifest not in known)


def _left_out(
    registry: Registry, remote: Remote, ours: Index, published: Index, theirs: Index
) -> Index:
    """Our versions whose numbers nobody can get any more, since a higher one is published."""
    before = reserved_numbers(registry, remote)
    models = {}
    for name, model in published.models.items():
        first = (theirs.models.get(name) or Model(name=name)).next_number
        known = before.models.get(name) or Model(name=name)
        versions = {
            number: version
            for number, version in ours.models[name].versions.items()
            if number not in model.versions and number not in model.removed
            if first <= number < model.next_number or number in known.versions
        }
        if versions:
            models[name] = Model(name=name, next_number=model.next_number, versions=versions)
    return Index(models=models)


def _result(
    remote: Remote, index: Index, sent: _Sent, fetched: Iterable[Fetched], *, changed: bool
) -> Pushed:
    new = (each for each in index.every_version() if each.manifest in sent.manifests)
    happened = tuple(each for each in fetched if each.merged is not None)
    nbytes = sum(sent.objects.values())
    return Pushed(remote.name, tuple(new), changed, len(sent.objects), nbytes, happened)


def _wait(attempt: int) -> None:
    if attempt:
        first, most = _SECONDS
        time.sleep(random.uniform(first, min(most, first * 2**attempt)))
