"""The index of a remote, merged into that of this registry, and the part of it that is pushed.

Laws: what the remote has keeps its number; an index older than the last one seen, or of another
registry, is refused; every manifest that the merged index names is here before the index is; all
that comes from a remote is checked like a stranger's file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ckpt.errors import ConflictError, IndexDamageError, IntegrityError, UsageError
from ckpt.registry.index import Index, Model
from ckpt.registry.index_file import read_index
from ckpt.registry.merge import Conflict, Merged, merged
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version
from ckpt.remote.bucket import Bucket
from ckpt.remote.objects.receiving import receive_manifests
from ckpt.remote.remotes import (
    Remote,
    last_seen,
    merging,
    note_seen,
    read_remotes,
    reserved_numbers,
)

PATH = "registry.json"
MOST_BYTES = 1 << 26  # of the index of a remote; 10,000 versions take 7 MB

Side = Literal["ours", "theirs"]


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch changed here.

    Attributes:
        remote: The name of the remote.
        new: The versions that are new here.
        merged: The merge; None if the remote has not changed since the last one.
    """

    remote: str
    new: tuple[Version, ...] = ()
    merged: Merged | None = None


def read_theirs(remote: Remote, bucket: Bucket) -> tuple[Index, str] | None:
    """The index of a remote and its tag; None if it has none.

    Raises:
        IntegrityError: It is damaged, or of a newer schema.
    """
    found = bucket.get(PATH, most=MOST_BYTES)
    if found is None:
        return None
    name = f"{remote.name}: {bucket.url}/{PATH}"
    try:
        return read_index(found[0], name=name), found[1]
    except IndexDamageError as error:
        raise IntegrityError(
            str(error), hint="a newer ckpt wrote it" if error.kind == "newer" else None
        ) from error


def written(remote: Remote, bucket: Bucket, index: Index, tag: str) -> bool:
    """Replace the index of the remote, if nobody else did; true if it is there."""
    if bucket.replace(PATH, index.to_text().encode("utf-8"), tag):
        return True
    # The refusal may be the answer to a repeated request, whose first attempt succeeded.
    found = read_theirs(remote, bucket)
    return found is not None and found[0].write_id == index.write_id


def merge_theirs(
    registry: Registry,
    remote: Remote,
    bucket: Bucket,
    theirs: Index,
    seen: Index,
    *,
    side: Side | None = None,
) -> Fetched:
    """Fetch the manifests of the remote's versions, and merge its index into ours.

    Args:
        registry: The registry.
        remote: The remote.
        bucket: Its bucket.
        theirs: Its index.
        seen: The index that was seen last before that was read.
        side: Which side wins conflicts; None raises them.

    Raises:
        ConflictError: Both sides moved an alias, or published a number.
        IntegrityError: The index is older than the one seen last, or a manifest is damaged.
        UsageError: It is the index of another registry.
    """
    _expect_later(remote, seen, theirs)
    if not registry.exists:
        registry.create(theirs.id)
    _expect_same_registry(remote, registry.index(), theirs)
    if theirs.write_id == seen.write_id:
        return Fetched(remote.name)
    with merging(registry, remote), registry.store.writing():
        seen = last_seen(registry, remote)
        if seen.serial >= theirs.serial and seen.write_id:  # another process was faster
            return Fetched(remote.name)
        _receive_new(registry, remote, bucket, registry.index(), theirs)
        fetched = _merged(registry, remote, theirs, seen, side)
        note_seen(registry, remote, theirs)
    return fetched


def _merged(
    registry: Registry, remote: Remote, theirs: Index, seen: Index, side: Side | None
) -> Fetched:
    """Merge the index of a remote, whose manifests are here, into ours."""
    published = [
        [theirs, *_seen_of_others(registry, remote)],
        [reserved_numbers(registry, remote)],
    ]
    results: list[tuple[Index, Merged]] = []

    def operation(index: Index) -> Index:
        result = merged(seen, index, theirs, published, take_theirs=side == "theirs")
        if result.conflicts and side is None:
            raise _conflict(remote, result.conflicts)
        results.append((index, result))
        same = result.index.models == index.models and result.index.unknown == index.unknown
        return index if same else result.index

    after = registry.index_file.commit(operation, f"fetch from {remote.name}", elsewhere=True)
    before, result = results[-1]
    known = {(version.model, version.content) for version in before.every_version()}
    new = (each for each in after.every_version() if (each.model, each.content) not in known)
    return Fetched(remote.name, tuple(each for each in new if not each.removed), result)


def _expect_later(remote: Remote, seen: Index, theirs: Index) -> None:
    """Refuse an index that is older than the last one, or has another history.

    Raises:
        IntegrityError: It is.
    """
    is_other = theirs.serial == seen.serial and theirs.write_id != seen.write_id
    if theirs.serial < seen.serial or (is_other and seen.write_id):
        raise IntegrityError(
            f"{remote.name}: serves write {theirs.serial} of its registry.json"
            f"{', but another one' if is_other else ''}; write {seen.serial} was seen before",
            hint="somebody restored an old state, or a cache is in between; if that was meant:\n"
            f"ckpt remote rm {remote.name}  and  ckpt remote add {remote.name} {remote.url}",
        )


def _expect_same_registry(remote: Remote, ours: Index, theirs: Index) -> None:
    if ours.id and theirs.id and ours.id != theirs.id:
        raise UsageError(
            f"{remote.name}: {remote.url} holds another registry: its id is {theirs.id[:8]}, "
            f"the id here is {ours.id[:8]}",
            hint=f"ckpt clone {remote.url} DIR  gets that one;  ckpt copy REF DIR  adds versions "
            "of this one to it",
        )


def _receive_new(
    registry: Registry, remote: Remote, bucket: Bucket, ours: Index, theirs: Index
) -> None:
    """Put the manifests of all versions into the store that only the remote has."""
    known = {version.manifest for version in ours.every_version()}
    new = {each.manifest: each for each in theirs.every_version() if each.manifest not in known}
    refs = {name: version.ref for name, version in new.items()}
    receive_manifests(registry, bucket, refs, remote.name)
    for name, version in new.items():
        if registry.store.manifest(name).content_digest != version.content:
            raise IntegrityError(
                f"{remote.name}: registry.json describes {version.ref} differently from its "
                "manifest"
            )


def _seen_of_others(registry: Registry, remote: Remote) -> Iterator[Index]:
    """The indexes of the other remotes, whose numbers hold too."""
    for other in read_remotes(registry).values():
        if other.name != remote.name and other.index == "bucket":
            yield last_seen(registry, other)


def _conflict(remote: Remote, conflicts: Iterable[Conflict]) -> ConflictError:
    first, *others = conflicts
    more = f", and {len(others)} more" if others else ""
    return ConflictError(
        f"{first.what}: {first.ours} here, {first.theirs} on {remote.name}, before {first.base}"
        f"{more}",
        hint=f"ckpt fetch {remote.name} --ours  or  --theirs  decides",
    )


def to_publish(ours: Index, theirs: Index, chosen: set[tuple[str, str]] | None) -> Index:
    """Our index without versions that are neither on the remote nor chosen.

    Args:
        ours: Our index, into which theirs was merged.
        theirs: The index of the remote.
        chosen: Model and content of versions; None for all that are not removed.
    """
    models = {}
    for name, model in ours.models.items():
        their = theirs.models.get(name) or Model(name=name)
        part = _part(model, their, chosen)
        if part.versions or part.removed or name in theirs.models:
            models[name] = part
    return replace(ours, models=models)


def _part(ours: Model, theirs: Model, chosen: set[tuple[str, str]] | None) -> Model:
    known = {version.content for version in theirs.every_version()}
    versions = {
        number: version
        for number, version in ours.versions.items()
        if version.content in known or chosen is None or (ours.name, version.content) in chosen
    }
    removed = {n: version for n, version in ours.removed.items() if version.content in known}
    # An alias that was moved to a version that stays here is still where it was there.
    aliases = {
        name: number if number in versions else theirs.aliases.get(name, 0)
        for name, number in ours.aliases.items()
    }
    aliases = {name: number for name, number in aliases.items() if number in versions}
    tagged = {
        name: tuple(n for n in numbers if n in versions) for name, numbers in ours.tags.items()
    }
    lines = (*versions.values(), *removed.values())
    manifests = {name for version in lines for name in version.manifests}
    return replace(
        ours,
        next_number=max([theirs.next_number, *(line.number + 1 for line in lines)]),
        aliases=aliases,
        protected=ours.protected & aliases.keys(),
        tags={name: numbers for name, numbers in tagged.items() if numbers},
        versions=versions,
        removed=removed,
        log=tuple(event for event in ours.log if event.manifest in {"", *manifests}),
    )
