"""Manifests that the reflog names, and when an index last did.

A registration is discarded when an older `registry.json` is put in place, by `git checkout` or by
hand. Values only.
"""

from collections.abc import Iterable, Sequence

from ckpt.registry.history.reflog import Entry


def last_named(entries: Sequence[Entry], manifests: Iterable[str], changed: str) -> dict[str, str]:
    """When each manifest was no longer named: the time of the first write after that.

    Args:
        entries: All entries of the reflog, in their order.
        manifests: Manifests that some of them name, and the current index does not.
        changed: The time of the current index, ISO 8601. It is the answer for manifests that the
            index of the last entry names.
    """
    return {name: _last_named(entries, name) or changed for name in manifests}


def _last_named(entries: Sequence[Entry], manifest: str) -> str:
    """The time of the first entry after the last index that names it; empty if there is none."""
    naming: set[str] = set()  # writes whose index names it
    refs: set[str] = set()
    time = ""
    for entry in entries:
        lines = {ref for ref, line in entry.versions.items() if manifest in _manifests(line)}
        refs |= lines
        dropped = {
            f"{change.model}:{change.name}"
            for change in entry.changes
            if change.kind == "version" and change.after is None
        }
        if lines or (entry.parent in naming and not refs & dropped):
            naming.add(entry.write_id)
            time = ""
        elif naming and not time:
            time = entry.time
    return time


def _manifests(line: object) -> list[object]:
    """The manifests of a version's line, as it was read."""
    return [line.get("manifest"), *line.get("also", ())] if isinstance(line, dict) else []
