"""Rm: remove versions from the list.

The line and the bytes of a removed version are kept, and its number is never reused.
"""

from collections.abc import Iterable

from ckpt.registry.index import Index, Version
from ckpt.registry.registry import Registry, now


def rm(refs: Iterable[str], *, registry: Registry | None = None) -> list[Version]:
    """Remove versions, all or none.

    Raises:
        RefError: There is no such version.
        ConflictError: An alias points to one.
    """
    registry = registry or Registry()
    versions = list({version.ref: version for version in map(registry.version, refs)}.values())

    def removed(index: Index) -> Index:
        for version in versions:
            model = index.model(version.model)
            if version.number in model.versions:  # else another process was faster
                index = index.with_model(model.without(version.number, at=now()))
        return index

    what = "rm " + ", ".join(version.ref for version in versions)
    registry.index_file.commit(removed, what)
    return versions
