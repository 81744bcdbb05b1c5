"""Log: the lineage of a version, from parent to parent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckpt.registry.index import Version
from ckpt.registry.registry import Registry


@dataclass(frozen=True, slots=True)
class Step:
    """One version of a lineage, with its record."""

    version: Version
    record: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """``trained``, ``fine-tuned``, ``renamed``, ``converted`` or ``registered``."""
        parent = self.record.get("parent")
        if "plan" in self.record:
            return "renamed"
        if parent:
            return "converted" if parent.get("same_tensors") else "fine-tuned"
        return "trained" if "training" in self.record else "registered"


def log(ref: str, *, registry: Registry | None = None) -> list[Step]:
    """The lineage of a version: itself, its parent, and so on.

    Removed versions are part of it as long as the store has their manifests.
    """
    registry = registry or Registry()
    steps: list[Step] = []
    version: Version | None = registry.version(ref)
    while version is not None:
        record = registry.manifest(version).record
        steps.append(Step(version, record))
        version = registry.parent(record)
    return steps
