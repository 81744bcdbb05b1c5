"""Tied tensors: keys that share the very bytes of another key, not equal copies."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckpt.opened.states import Opened, OpenedDefinition, OpenedVersion
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    from ckpt.registry.manifest import Manifest


def ties_of(opened: Opened) -> dict[str, str]:
    """Keys that share the bytes of an earlier key, with that key; none in a definition."""
    match opened:
        case OpenedDefinition():
            return {}
        case OpenedVersion():
            return _ties_of_version(opened.manifest)
    return _ties_of_file(opened.entries)


def _ties_of_file(entries: Sequence[TensorEntry]) -> dict[str, str]:
    """Keys whose bytes are at the same place in the file as those of an earlier key."""
    first: dict[object, str] = {}
    ties = {}
    for entry in entries:
        nbytes = entry.nbytes
        if nbytes:
            place = (entry.offset, nbytes, entry.stride, entry.stride and entry.shape)
            key = first.setdefault(place, entry.key)
            if key is not entry.key:
                ties[entry.key] = key
    return ties


def _ties_of_version(manifest: "Manifest") -> dict[str, str]:
    """The same by digest: tensors with equal bytes for which the file has no separate place."""
    rooms = Counter(hole.digest for hole in manifest.skeleton.holes)
    first: dict[str, str] = {}
    met: Counter[str] = Counter()
    ties = {}
    for entry in manifest.entries:
        name = str(entry.digest)
        met[name] += 1
        key = first.setdefault(name, entry.key)
        if met[name] > rooms.get(name, met[name]):
            ties[entry.key] = key
    return ties
