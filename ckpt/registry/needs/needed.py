"""What a registry needs, who needs it, and until when: one notion for all commands.

Needed are the manifests of all versions, of the removed ones that `restore` can bring back, those
that a merge found to hold the same bytes, those that only git's history names, those that only the
reflog names, for a time; and all objects of these.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ckpt.io import digest
from ckpt.registry.history.roots import last_named
from ckpt.registry.index import Index
from ckpt.registry.needs.lost import Lost
from ckpt.registry.registry import Registry
from ckpt.registry.store.listing import StoredObject
from ckpt.registry.version import Version

KEEP_REMOVED = timedelta(days=30)
KEEP_REFLOG = timedelta(days=90)
VERSION, REMOVED, GIT, REFLOG = "version", "removed", "git", "reflog"


@dataclass(frozen=True, slots=True)
class Need:
    """A needed manifest.

    Attributes:
        user: What needs it, for messages: ``net:v3 (removed)``.
        manifest: Its digest.
        kind: ``version``, ``removed``, ``git`` or ``reflog``.
        until: When `gc` stops keeping it; None for as long as the user is there.
    """

    user: str
    manifest: str
    kind: str
    until: datetime | None = None


def needed(
    registry: Registry,
    index: Index,
    stored: Iterable[StoredObject],
    lost: Iterable[Lost],
    *,
    keep_removed: timedelta = KEEP_REMOVED,
    keep_reflog: timedelta = KEEP_REFLOG,
    forgotten: Iterable[Version] = (),
) -> Iterator[Need]:
    """Every needed manifest; those of versions come first.

    Args:
        registry: The registry.
        index: Its index.
        stored: What is in its store: a manifest that no version of the index has as its own may
            never have been on this machine.
        lost: The versions that only git's history has.
        keep_removed: How long removed versions are kept; the index names them until `gc` ran.
        keep_reflog: How long manifests are kept that only the reflog names.
        forgotten: Versions whose manifests are not needed, although the reflog names them.
    """
    own = set()
    for version in index.every_version():
        own.add(version.manifest)
        if version.number in index.models[version.model].removed:
            until = _after(removed_at(version), keep_removed)
            yield Need(f"{version.ref} (removed)", version.manifest, REMOVED, until)
        else:
            yield Need(version.ref, version.manifest, VERSION)
    present = {each.digest for each in stored if each.is_manifest}
    present -= own | {name for version in forgotten for name in version.manifests}
    others = [
        *(
            Need(f"{version.ref} (merged)", name, VERSION)
            for version in index.every_version()
            for name in version.also
        ),
        *(Need(f"{each.version.ref} (in git)", each.version.manifest, GIT) for each in lost),
    ]
    seen = set()
    for need in others:
        if need.manifest in present and need.manifest not in seen:
            seen.add(need.manifest)
            yield need
    yield from _of_the_reflog(registry, present - seen, keep_reflog)


def removed_at(version: Version) -> datetime:
    """When a version was removed; now, if its line does not say."""
    return _time(version.removed or version.created) or datetime.now(UTC)


def _of_the_reflog(registry: Registry, present: set[str], kept: timedelta) -> Iterator[Need]:
    reflog = registry.index_file.reflog
    if not (names := sorted(reflog.manifests() & present)):
        return
    times = last_named(reflog.entries(), names, _changed(registry))
    for name, time in times.items():
        since = _time(time)
        until = since and _after(since, kept)
        if until is None or until > datetime.now(UTC):
            yield Need(f"version {digest.short(name)} of the reflog", name, REFLOG, until)


def _after(time: datetime, kept: timedelta) -> datetime | None:
    """The end of a period; None if it is after the year 9999."""
    with suppress(OverflowError):
        return time + kept
    return None


def _time(text: str) -> datetime | None:
    with suppress(ValueError):
        return datetime.fromisoformat(text).astimezone(UTC)
    return None


def _changed(registry: Registry) -> str:
    """When `registry.json` got its content; a checkout by git is a change, too."""
    path = registry.index_file.path
    seconds = path.stat().st_mtime if path.exists() else datetime.now(UTC).timestamp()
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
