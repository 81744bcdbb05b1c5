"""Lists of versions: `ckpt ls`."""

from collections.abc import Sequence
from typing import Any

from ckpt.errors import UsageError, excerpt
from ckpt.registry.index import Index
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version
from ckpt.show.look.fields import fields
from ckpt.show.look.terminal import table
from ckpt.show.look.words import count, metric, metrics, size

# Columns that a narrow terminal goes without, in this order.
_LEAST = ("new bytes", "keys", "made by", "size", "tags", "when")
_SHORTEST = 16  # columns; a message is cut to no fewer


def versions_text(
    versions: Sequence[Version], index: Index, *, width: int | None, columns: Sequence[str] = ()
) -> str:
    """A table, one of at least one version a line.

    Args:
        versions: The versions.
        index: The index that has them.
        width: Of the terminal: columns are left out and messages cut to fit it; None for any.
        columns: The columns to show; all that are not empty if there are none.

    Raises:
        UsageError: There is no such column.
    """
    scored = sorted({name for version in versions for name in version.metrics})
    rows = [_version_row(version, index, scored) for version in versions]
    if unknown := [each for each in columns if each not in rows[0]]:
        raise UsageError(f"no column {unknown[0]!r}", hint=f"columns: {','.join(rows[0])}")
    optional = ("aliases", "tags", "message")
    shown = list(columns) or [
        head for head in rows[0] if head not in optional or any(row[head] for row in rows)
    ]
    if width is not None and not columns:
        shown = _fitted(rows, shown, width)
    cells = [[row[head] for head in shown] for row in rows]
    right = [*scored, "keys", "size", "new bytes"]
    return table(cells, shown, right=right, width=width)


def registry_text(registry: Registry) -> str:
    """All versions of a registry."""
    versions = registry.versions()
    if not versions:
        return f"no versions in {registry.folder}"
    return versions_text(versions, registry.index(), width=None)


def version_text(version: Version) -> str:
    """One version in a line."""
    made = f"  {version.made_by}" if version.made_by else ""
    scores = f"  {metrics(version.metrics)}" if version.metrics else ""
    return f"{version.ref}{made}{scores}  {count(version.keys, 'key')}, {size(version.size)}"


def _fitted(rows: Sequence[dict[str, str]], shown: list[str], width: int) -> list[str]:
    """The columns that fit; messages are cut in place."""
    widths = {head: max(len(head) + 2, *(len(row[head]) for row in rows)) for head in shown}
    for head in (*_LEAST, "message"):
        spare = width - sum(widths.values()) - 2 * (len(widths) - 1)
        room = max(_SHORTEST, widths.get("message", 0) + spare)
        if spare < 0 and widths.get("message", 0) > room:
            widths["message"] = room
            spare = width - sum(widths.values()) - 2 * (len(widths) - 1)
        if spare < 0:
            widths.pop(head, None)
    if "message" in widths:
        for row in rows:
            if len(row["message"]) > widths["message"]:
                row["message"] = excerpt(row["message"], widths["message"] - 1)
    return [head for head in shown if head in widths]


def refs_text(versions: Sequence[Version]) -> str:
    """Their refs alone, for scripts."""
    return "\n".join(version.ref for version in versions)


def _version_row(version: Version, index: Index, scored: Sequence[str]) -> dict[str, str]:
    scores = {
        name: metric(name, version.metrics[name]) if name in version.metrics else ""
        for name in scored
    }
    model = index.models[version.model]
    return {
        "model": version.model,
        "version": version.label,
        "aliases": ", ".join(model.aliases_of(version)),
        "tags": ", ".join(model.tags_of(version)),
        "made by": version.made_by,
        **scores,
        "keys": f"{version.keys:,}",
        "size": size(version.size),
        "new bytes": size(version.new_bytes),
        "when": version.created[:10],
        "message": version.message,
    }


def version_data(
    version: Version, aliases: Sequence[str] = (), tags: Sequence[str] = ()
) -> dict[str, Any]:
    """One version for JSON."""
    return {
        **fields(version, "model", "version=label"),
        "aliases": list(aliases),
        "tags": list(tags),
        **fields(version, "made_by", "metrics", "keys", "size", "new_bytes", "created"),
        **fields(version, "message", "manifest", "file"),
        **({"renumbered": version.renumbered} if version.renumbered else {}),
    }


def versions_data(versions: Sequence[Version], index: Index) -> list[dict[str, Any]]:
    """Versions for JSON."""
    model = index.models
    return [
        version_data(v, model[v.model].aliases_of(v), model[v.model].tags_of(v)) for v in versions
    ]
