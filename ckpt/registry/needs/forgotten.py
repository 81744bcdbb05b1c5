"""Removed versions that are kept no longer."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from ckpt.errors import DiskError
from ckpt.registry.index import Index
from ckpt.registry.needs.needed import removed_at
from ckpt.registry.version import Version

SLACK = timedelta(minutes=1)  # allowed difference of two clocks


def forgotten(index: Index, kept: timedelta, now: datetime) -> Iterator[Version]:
    """The versions that were removed longer ago than they are kept.

    Raises:
        DiskError: One was removed in the future: a clock cannot be trusted.
    """
    for model in index.models.values():
        for version in model.removed.values():
            removed = removed_at(version)
            if removed > now + SLACK:
                raise from_the_future(version.ref, "was removed", removed, now)
            if now - removed >= kept:
                yield version


def without(index: Index, gone: Iterable[Version]) -> Index:
    """The index without these versions; one that was restored meanwhile stays."""
    for version in gone:
        model = index.model(version.model)
        if model.removed.get(version.number) == version:
            index = index.with_model(model.forgotten(version.number))
    return index


def from_the_future(what: str, verb: str, when: datetime, now: datetime) -> DiskError:
    """The error about something that is dated later than now."""
    return DiskError(
        f"{what} {verb} {when:%Y-%m-%d %H:%M}, but the clock says {now:%Y-%m-%d %H:%M}",
        hint="nothing was removed; correct the clock first",
    )
