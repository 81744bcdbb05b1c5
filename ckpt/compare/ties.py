"""Tied tensors: keys whose bytes are those of another key, not merely equal ones."""

from collections import Counter
from collections.abc import Sequence

from ckpt.opened import Opened, OpenedDefinition, OpenedVersion
from ckpt.registry.manifest import Manifest
from ckpt.tensors import TensorEntry


def ties_of(opened: Opened) -> dict[str, str]:
    """Keys that share the bytes of an earlier key, with that key; of a definition none."""
    match opened:
        case OpenedDefinition():
            return {}
        case OpenedVersion():
            return _ties_of_version(opened.manifest)
    return _ties_of_file(opened.entries)


def _ties_of_file(entries: Sequence[TensorEntry]) -> dict[str, str]:
    """Keys whose bytes stand where those of an earlier key stand."""
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


def _ties_of_version(manifest: Manifest) -> dict[str, str]:
    """The same by digest: of tensors with equal bytes, those for which the file has no room."""
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
