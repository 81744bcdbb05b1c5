"""The non-tensor part of a file without what follows a rename."""

from collections.abc import Container, Mapping
from typing import Any


def without(rest: Mapping[str, Any], paths: Container[str], top: str = "") -> dict[str, Any]:
    """The same without the values at some paths, which are dotted: ``args.0.frozen``."""
    kept = {}
    for key, value in rest.items():
        path = f"{top}.{key}" if top else key
        if path not in paths:
            kept[key] = _pruned(value, paths, path)
    return kept


def _pruned(value: object, paths: Container[str], path: str) -> object:
    if isinstance(value, Mapping):
        return without(value, paths, path)
    if isinstance(value, list | tuple):
        places = (f"{path}.{at}" for at in range(len(value)))
        return [
            _pruned(item, paths, place)
            for item, place in zip(value, places, strict=True)
            if place not in paths
        ]
    return value
