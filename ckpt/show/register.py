"""A version that was added by `ckpt register`, `rename` or `train`."""

from collections.abc import Iterator, Mapping
from typing import Any

from ckpt.io import digest
from ckpt.registry.registry import Added
from ckpt.show.look.words import count, metrics, size
from ckpt.show.ls import version_data


def added_text(added: Added) -> str:
    """The version, and whether it was added."""
    return "\n".join([_version_text(added), *_labels(added)])


def _labels(added: Added) -> Iterator[str]:
    if alias := added.labels.alias:
        yield f"{added.version.model}@{alias} points to {added.version.label}"
    if tags := added.labels.tags:
        yield f"{added.version.ref} is tagged {', '.join(tags)}"


def _version_text(added: Added) -> str:
    version = added.version
    name = f"{version.ref}  {digest.short(version.manifest)}  {size(version.size)}"
    if not added.new:
        words = ["the message"] if added.noted else []
        words += [metrics(added.measured)] if added.measured else []
        what = f"added {' and '.join(words)}" if words else "nothing added"
        return f"already registered as {name}: the same bytes, {what}"
    return f"registered {name}, {count(version.keys, 'key')}, {size(version.new_bytes)} new"


def added_data(added: Added) -> Mapping[str, Any]:
    """The same for JSON, with the labels that were asked for."""
    alias = added.labels.alias
    return {
        **version_data(added.version, [*filter(None, [alias])], added.labels.tags),
        "new": added.new,
        "dropped": list(added.dropped),
        "noted": added.noted or None,
        "measured": dict(added.measured),
    }
