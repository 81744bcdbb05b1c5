"""A version that was added by `ckpt register`, `rename` or `train`."""

from collections.abc import Iterator, Mapping
from typing import Any

from ckpt.io import digest
from ckpt.registry.adding import Added
from ckpt.show.look.fields import fields
from ckpt.show.look.words import count, first_names, metrics, size
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
    beside = f", {count(len(added.side_files), 'side file')}" if added.side_files else ""
    return f"registered {name}, {count(version.keys, 'key')}{beside}, {size(version.new_bytes)} new"


def left_text(added: Added) -> str | None:
    """What the folder holds and the version does not, if there is anything."""
    return f"not registered: {first_names(added.left)}" if added.left else None


def large_text(nbytes: int) -> str:
    """That git would copy this many bytes of objects into every clone, and what to do, once."""
    return (
        f".ckpt/objects has {size(nbytes)} now, and git would copy all of it into every clone\n"
        "ckpt git-driver install --lfs  or  --store FOLDER  keeps it out of git: docs/sharing.md"
    )


def added_data(added: Added) -> Mapping[str, Any]:
    """The same for JSON, with the labels that were asked for."""
    alias = added.labels.alias
    return {
        **version_data(added.version, [*filter(None, [alias])], added.labels.tags),
        **fields(added, "new", "dropped", "side_files", "left"),
        "noted": added.noted or None,
        "measured": dict(added.measured),
    }
