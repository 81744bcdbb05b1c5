"""An index rebuilt from the reflog and the stored manifests.

Values only. Law: every manifest belongs to a version, present or removed; several of the same bytes
belong to one. The times of files are never used.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckpt.refs import is_name
from ckpt.registry.index import Index
from ckpt.registry.manifest import Manifest
from ckpt.registry.version import Version

NAMELESS = "recovered"  # the model of versions whose record does not name one


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A rebuilt index, and its differences from the lost one as far as they are known.

    Attributes:
        index: The new index.
        added: Versions found only in manifests, with new numbers.
        unread: Versions of the reflog whose manifests cannot be read. They stay in the index: a
            good copy of the manifest restores them.
    """

    index: Index
    added: tuple[Version, ...]
    unread: tuple[Version, ...]


def rebuilt(
    known: Index, manifests: Mapping[str, Manifest], sizes: Mapping[str, int] | None = None
) -> Rebuilt:
    """Rebuild an index.

    Args:
        known: The index of the reflog; its versions keep their numbers.
        manifests: All readable manifests, by digest.
        sizes: Their bytes in the store.
    """
    index = known
    versions = list(known.every_version())
    named = {name for version in versions for name in version.manifests}
    readable = {
        (version.model, version.content) for version in versions if version.manifest in manifests
    }
    twins: dict[tuple[str, str], list[str]] = {}  # manifests by model and content
    for name in _parents_first({k: m for k, m in manifests.items() if k not in named}):
        content = model_of(manifests[name]), manifests[name].content_digest
        if content not in readable:
            twins.setdefault(content, []).append(name)
    objects = {key for name in named & manifests.keys() for key in manifests[name].objects()}
    added = []
    for (model, _), names in twins.items():
        manifest = manifests[names[0]]
        needs = manifest.objects()
        grown = sum(nbytes for key, (nbytes, _) in needs.items() if key not in objects)
        grown += (sizes or {}).get(names[0], 0)
        number = index.next_number(model)
        version = _version(manifest, names, model=model, number=number, new_bytes=grown)
        index = index.with_version(version)
        objects |= needs.keys()
        added.append(version)
    present = (version for model in known.models.values() for version in model.versions.values())
    unread = (version for version in present if version.manifest not in manifests)
    return Rebuilt(index, tuple(added), tuple(unread))


def model_of(manifest: Manifest) -> str:
    """The model that a manifest's record names."""
    name = str(manifest.record.get("model", ""))
    return name if is_name(name) else NAMELESS


def _parents_first(manifests: Mapping[str, Manifest]) -> Iterator[str]:
    """Parents before their children, else by the record's time, else by digest."""
    children: dict[str, list[str]] = {}
    ready = []
    for name, manifest in manifests.items():
        parent = _parent(manifest)
        if parent in manifests:
            children.setdefault(parent, []).append(name)
        else:
            ready.append((manifest.record.get("created", ""), name))
    heapq.heapify(ready)
    while ready:
        _, name = heapq.heappop(ready)
        yield name
        for child in children.get(name, ()):
            heapq.heappush(ready, (manifests[child].record.get("created", ""), child))


def _parent(manifest: Manifest) -> str:
    """Its parent's manifest; a digest exists before a record can name it, so there is no cycle."""
    return str(manifest.record.get("parent", {}).get("manifest", ""))


def _version(
    manifest: Manifest, names: list[str], *, model: str, number: int, new_bytes: int
) -> Version:
    """The version of the first of several manifests of the same bytes."""
    record = manifest.record
    return Version(
        model=model,
        number=number,
        manifest=names[0],
        content=manifest.content_digest,
        file=manifest.file_digest,
        size=manifest.skeleton.size,
        keys=len(manifest.entries),
        new_bytes=new_bytes,
        made_by=record.get("made_by") or "found by fsck",
        created=record.get("created", ""),
        metrics=record.get("metrics", {}),
        message=record.get("message", ""),
        tensors=manifest.tensors_digest,
        also=tuple(sorted(names[1:])),
    )
