"""Versions with the newest values of their metrics.

A version's line has the metrics that it was added with; later ones are in the history of its model.
"""

from collections.abc import Iterable
from dataclasses import replace

from ckpt.registry.events import Event
from ckpt.registry.index import Index, Model
from ckpt.registry.version import Version


class Newest:
    """The newest values of a model's metrics.

    Args:
        history: The model's events, oldest first.
    """

    def __init__(self, history: Iterable[Event]) -> None:
        # by manifest, then by name: the place in the history, and the value
        self._found: dict[str, dict[str, tuple[int, float]]] = {}
        for place, event in enumerate(history):
            for name, value in event.metrics.items():
                self._found.setdefault(event.manifest, {})[name] = (place, value)

    def of(self, version: Version) -> Version:
        """The version with its newest metrics."""
        found: dict[str, tuple[int, float]] = {}
        for manifest in version.manifests:
            for name, placed in self._found.get(manifest, {}).items():
                found[name] = max(placed, found.get(name, placed))
        if not found:
            return version
        later = {name: value for name, (_, value) in found.items()}
        return replace(version, metrics={**version.metrics, **later})


def newest(index: Index, version: Version) -> Version:
    """A version of an index with its newest metrics."""
    return Newest(index.models[version.model].log).of(version)


def newest_versions(model: Model) -> list[Version]:
    """The versions of a model with their newest metrics."""
    known = Newest(model.log)
    return [known.of(version) for version in model.versions.values()]
