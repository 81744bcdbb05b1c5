"""Blame: which version last changed a tensor, and what became of it before; from manifests alone.

The history of a version is its parent, where its record names one, and else the version before it
of the same model. A tensor is followed through renames: by the plan that was recorded, and by its
digest where the names alone changed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckpt.compare.keys import compare_entries
from ckpt.errors import RefError
from ckpt.refs import VersionRef
from ckpt.registry.index import Version
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry
from ckpt.tensors import TensorEntry


@dataclass(frozen=True, slots=True)
class Touch:
    """A version that did something to a tensor.

    Attributes:
        version: Which.
        key: The tensor's key in it.
        did: ``added``, ``changed`` or ``renamed``.
        digest: Of its bytes, as they are from there on.
        before: Its key in the version before; None where it was added.
    """

    version: Version
    key: str
    did: str
    digest: str
    before: str | None


def blame(
    key: str, ref: str | None = None, *, registry: Registry | None = None
) -> list[tuple[str, Touch]]:
    """The version that gave each tensor its bytes.

    Args:
        key: A key of the version, or a module, whose tensors are all meant.
        ref: The version; None takes the latest of the only model.
        registry: Where.

    Returns:
        Each key of the version that is meant, and the last touch that was no rename.

    Raises:
        RefError: There is no such version or key.
        IntegrityError: A manifest is absent or damaged.
    """
    found = touches(key, ref, registry=registry)
    return [(name, next(t for t in each if t.did != "renamed")) for name, each in found.items()]


def touches(
    key: str, ref: str | None = None, *, registry: Registry | None = None
) -> dict[str, list[Touch]]:
    """All that was done to each tensor that `key` means, the last first; see `blame`."""
    registry = registry or Registry()
    version = registry.version(ref or VersionRef(None))
    history = list(_history(version, registry))
    keys = _meant(key, history[0][1], version.ref)
    return {name: list(_touches(name, history)) for name in keys}


def _history(version: Version, registry: Registry) -> Iterator[tuple[Version, Manifest]]:
    """A version and those before it."""
    found: Version | None = version
    while found is not None:
        manifest = registry.manifest(found)
        yield found, manifest
        found = registry.parent(manifest.record) or registry.index().before(found)


def _meant(key: str, manifest: Manifest, ref: str) -> list[str]:
    keys = [entry.key for entry in manifest.entries]
    meant = [each for each in keys if each == key or each.startswith(f"{key}.")]
    if not meant:
        from difflib import get_close_matches

        near = get_close_matches(key, keys, n=3)
        raise RefError(
            f"{ref} has no key {key!r}",
            hint=f"did you mean {', '.join(near)}?" if near else f"ckpt show {ref}  lists them",
        )
    return meant


def _touches(key: str, history: list[tuple[Version, Manifest]]) -> Iterator[Touch]:
    for at, (version, manifest) in enumerate(history):
        entry = _entries(manifest)[key]
        before = history[at + 1][1] if at + 1 < len(history) else None
        old = None if before is None else _before(entry, manifest, before)
        if old is None:
            yield Touch(version, key, "added", str(entry.digest), None)
            return
        same = (old.digest, old.dtype, old.shape) == (entry.digest, entry.dtype, entry.shape)
        if not same or old.key != key:
            did = "renamed" if same else "changed"
            yield Touch(version, key, did, str(entry.digest), old.key)
        key = old.key


def _before(entry: TensorEntry, manifest: Manifest, before: Manifest) -> TensorEntry | None:
    """What the tensor was in the version before."""
    plan = manifest.record.get("plan") or {}
    old_keys = {new: old for old, new in plan.get("keys", {}).items()}
    known = _entries(before)
    if old := known.get(old_keys.get(entry.key, entry.key)):
        return old
    renamed = compare_entries(before.entries, manifest.entries).renamed
    return next((old for old, new in renamed if new.key == entry.key), None)


def _entries(manifest: Manifest) -> Mapping[str, TensorEntry]:
    return {entry.key: entry for entry in manifest.entries}
