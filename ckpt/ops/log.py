"""Log: the lineage of a version, and the history of its tensors; only manifests are read.

In the history of a tensor a version follows its parent if its record names one, else the previous
version of the same model. A tensor is followed through renames: by the recorded plan, or by its
digest.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ckpt.compare.keys import compare_entries
from ckpt.errors import RefError
from ckpt.io.who import By
from ckpt.printed import Printed
from ckpt.refs import VersionRef, several
from ckpt.registry.events import Event, about
from ckpt.registry.lineage import parent_of
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.version import Version
from ckpt.tensors import TensorEntry


@dataclass(frozen=True, slots=True, repr=False)
class Step(Printed):
    """One version of a lineage, with its record and the events of its history."""

    VIEW: ClassVar = "ckpt.show.log:step_text"

    version: Version
    record: Mapping[str, Any]
    history: tuple[Event, ...] = ()

    @property
    def kind(self) -> str:
        """``trained``, ``fine-tuned``, ``renamed``, ``converted`` or ``registered``."""
        parent = self.record.get("parent")
        if "plan" in self.record:
            return "renamed"
        if parent:
            return "converted" if parent.get("same_tensors") else "fine-tuned"
        return "trained" if "training" in self.record else "registered"


@dataclass(frozen=True, slots=True)
class Touch:
    """A version that added, changed or renamed a tensor.

    Attributes:
        version: The version.
        key: The tensor's key in it.
        did: ``added``, ``changed`` or ``renamed``.
        digest: Digest of the tensor in it.
        before: Its key in the previous version; None if it was added.
        by: Who added the version; None if that is unknown.
    """

    version: Version
    key: str
    did: str
    digest: str
    before: str | None
    by: By | None


def log(ref: str | None = None, *, registry: InRegistry | None = None) -> list[Step]:
    """The lineage of a version: itself, its parent, and so on.

    Removed versions are part of it as long as the store has their manifests.

    Args:
        ref: The version; None takes the latest of the only model.
        registry: The registry; None finds it as the command line does.

    Example:
        >>> new = ckpt.rename("net:v1", ["embed->conv"]).added.version
        >>> [step.version.made_by for step in ckpt.log(new.ref)]
        ['rename of v1', 'register Net']
    """
    registry = Registry.of(registry)
    steps: list[Step] = []
    version: Version | None = registry.version(ref or VersionRef(None))
    while version is not None:
        record, log = registry.manifest(version).record, registry.index().model(version.model).log
        steps.append(Step(version, record, about(log, version.manifests)))
        version = parent_of(registry, record, passed=[step.version.ref for step in steps])
    return steps


def touches(
    keys: str | Iterable[str],
    ref: str | None = None,
    *,
    registry: InRegistry | None = None,
) -> dict[str, list[Touch]]:
    """The history of each tensor of a version, newest first.

    Args:
        keys: Its keys, or modules for all their tensors, one or several.
        ref: The version; None takes the latest of the only model.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There is no such version or key.
    """
    registry = Registry.of(registry)
    version = registry.version(ref or VersionRef(None))
    history = list(_history(version, registry))
    names = [
        name for key in several(keys) for name in _matching_keys(key, history[0][1], version.ref)
    ]
    return {name: list(_touches(name, history)) for name in names}


def _history(version: Version, registry: Registry) -> Iterator[tuple[Version, Manifest]]:
    """A version and its predecessors."""
    found: Version | None = version
    passed: set[str] = set()
    while found is not None and found.ref not in passed:
        passed.add(found.ref)
        manifest = registry.manifest(found)
        yield found, manifest
        parent = parent_of(registry, manifest.record, passed=passed)
        found = parent or registry.index().before(found)


def _matching_keys(key: str, manifest: Manifest, ref: str) -> list[str]:
    keys = [entry.key for entry in manifest.entries]
    matching = [name for name in keys if name == key or name.startswith(f"{key}.")]
    if not matching:
        from difflib import get_close_matches

        near = get_close_matches(key, keys, n=3)
        raise RefError(
            f"{ref} has no key {key!r}",
            hint=f"did you mean {', '.join(near)}?" if near else f"to list them:  ckpt show {ref}",
        )
    return matching


def _touches(key: str, history: list[tuple[Version, Manifest]]) -> Iterator[Touch]:
    for at, (version, manifest) in enumerate(history):
        entry, by = _entries(manifest)[key], manifest.record.get("by")
        before = history[at + 1][1] if at + 1 < len(history) else None
        old = None if before is None else _before(entry, manifest, before)
        if old is None:
            yield Touch(version, key, "added", str(entry.digest), None, by)
            return
        same = (old.digest, old.dtype, old.shape) == (entry.digest, entry.dtype, entry.shape)
        if not same or old.key != key:
            did = "renamed" if same else "changed"
            yield Touch(version, key, did, str(entry.digest), old.key, by)
        key = old.key


def _before(entry: TensorEntry, manifest: Manifest, before: Manifest) -> TensorEntry | None:
    """The tensor in the previous version."""
    plan = manifest.record.get("plan") or {}
    old_keys = {new: old for old, new in plan.get("keys", {}).items()}
    known = _entries(before)
    if old := known.get(old_keys.get(entry.key, entry.key)):
        return old
    renamed = compare_entries(before.entries, manifest.entries).renamed
    return next((old for old, new in renamed if new.key == entry.key), None)


def _entries(manifest: Manifest) -> Mapping[str, TensorEntry]:
    return {entry.key: entry for entry in manifest.entries}
