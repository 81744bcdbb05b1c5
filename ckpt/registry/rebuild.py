"""An index made anew of what the reflog tells and of the manifests that the store holds.

Values only. Law: every manifest ends up in exactly one version, there or removed, but that content
which its model holds already is not added twice. Clocks of files decide nothing.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from ckpt.errors import UsageError
from ckpt.manifest import Manifest
from ckpt.registry.index import Index, Version
from ckpt.registry.refs import expect_name

NAMELESS = "recovered"  # the model of versions whose record names none


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A new index, and what is not as it was.

    Attributes:
        index: The new one.
        added: Versions of manifests that the reflog does not name, with new numbers.
        unread: Versions that the reflog tells of, whose manifests cannot be read. They stay, so
            that a good copy of the manifest is all that it takes to have them back.
    """

    index: Index
    added: tuple[Version, ...]
    unread: tuple[Version, ...]


def rebuilt(known: Index, manifests: Mapping[str, Manifest]) -> Rebuilt:
    """Make an index.

    Args:
        known: What the reflog tells; its versions keep their numbers.
        manifests: All that can be read, by digest.
    """
    index = known
    named = {name for version in _every(index) for name in version.manifests}
    held = {(each.model, each.content) for each in _every(index) if each.manifest in manifests}
    objects = {key for name in named & manifests.keys() for key in manifests[name].objects()}
    added: list[Version] = []
    for name in _parents_first({k: v for k, v in manifests.items() if k not in named}):
        manifest = manifests[name]
        model = model_of(manifest)
        if (model, manifest.content_digest) in held:
            continue
        new_bytes = sum(n for key, (n, _) in manifest.objects().items() if key not in objects)
        version = _version(model, index.next_number(model), name, manifest, new_bytes)
        index = index.with_version(version)
        held.add((model, version.content))
        objects |= manifest.objects().keys()
        added.append(version)
    unread = (each for each in _there(known) if each.manifest not in manifests)
    return Rebuilt(index, tuple(added), tuple(unread))


def model_of(manifest: Manifest) -> str:
    """The model that a manifest's record names."""
    try:
        return expect_name(str(manifest.record.get("model")))
    except UsageError:
        return NAMELESS


def _there(index: Index) -> Iterator[Version]:
    for model in index.models.values():
        yield from model.versions.values()


def _every(index: Index) -> Iterator[Version]:
    yield from _there(index)
    for model in index.models.values():
        yield from model.removed.values()


def _parents_first(manifests: Mapping[str, Manifest]) -> Iterator[str]:
    """Parents before what was made of them, else by the record's time, else by digest."""
    children: dict[str, list[str]] = {}
    ready = []
    for name, manifest in manifests.items():
        parent = _parent(manifest)
        if parent in manifests:
            children.setdefault(parent, []).append(name)
        else:
            ready.append((_text(manifest, "created"), name))
    heapq.heapify(ready)
    while ready:
        _, name = heapq.heappop(ready)
        yield name
        for child in children.get(name, ()):
            heapq.heappush(ready, (_text(manifests[child], "created"), child))


def _parent(manifest: Manifest) -> str:
    """Its parent's manifest; a digest names what came before, so there is no circle."""
    parent = manifest.record.get("parent")
    return str(parent.get("manifest")) if isinstance(parent, dict) else ""


def _version(model: str, number: int, name: str, manifest: Manifest, new_bytes: int) -> Version:
    metrics = manifest.record.get("metrics")
    return Version(
        model=model,
        number=number,
        manifest=name,
        content=manifest.content_digest,
        file=manifest.file_digest,
        size=manifest.skeleton.size,
        keys=len(manifest.entries),
        new_bytes=new_bytes,
        made_by=_text(manifest, "made_by") or "found by fsck",
        created=_text(manifest, "created"),
        metrics=_numbers(metrics) if isinstance(metrics, dict) else {},
        message=_text(manifest, "message"),
    )


def _text(manifest: Manifest, field: str) -> str:
    """A text of the record; empty if there is none, as in records of older versions."""
    value = manifest.record.get(field)
    return value if isinstance(value, str) else ""


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in metrics.items()
        if type(value) in (int, float) and isfinite(value)
    }
