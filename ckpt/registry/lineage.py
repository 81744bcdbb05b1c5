"""What a version was made from, as its record says."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from ckpt.errors import IntegrityError
from ckpt.registry.history.newest import newest
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version


def parent_of(
    registry: Registry, record: Mapping[str, Any], *, passed: Collection[str] = ()
) -> Version | None:
    """The version that a record names as its parent; it may have been removed since.

    It is found by its manifest, since a merge may have given it another number. None if the
    record names none, or if gc has deleted it.

    Args:
        registry: The registry.
        record: Of the version whose parent is wanted.
        passed: Refs of versions that a way up has passed. None of them comes again: after a
            merge two versions may name each other.
    """
    parent = record.get("parent")
    if parent is None:
        return None
    index, manifest = registry.index(), parent["manifest"]
    found = (version for version in index.every_version() if manifest in version.manifests)
    return next((newest(index, it) for it in found if it.ref not in passed), None)


def measured(registry: Registry, version: Version, record: Mapping[str, Any]) -> Version | None:
    """The version whose metrics are known: itself, or the nearest one that it was made from."""
    found: Version | None = version
    passed: set[str] = set()
    with suppress(IntegrityError):
        while found is not None and not found.metrics:
            passed.add(found.ref)
            found = parent_of(registry, record, passed=passed) if "plan" in record else None
            record = registry.manifest(found).record if found else {}
    return found if found is not None and found.metrics else None
