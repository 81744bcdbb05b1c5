"""Lists of versions: `ckpt ls`."""

from collections.abc import Sequence
from typing import Any

from ckpt.registry.index import Index, Version
from ckpt.show.look.fields import fields
from ckpt.show.look.terminal import table
from ckpt.show.look.words import metric, size


def versions_text(versions: Sequence[Version], index: Index, *, width: int | None) -> str:
    """A table, one of at least one version a line."""
    scored = sorted({name for version in versions for name in version.metrics})
    rows = [_version_row(version, index, scored) for version in versions]
    optional = ("aliases", "tags", "message")
    shown = [head for head in rows[0] if head not in optional or any(row[head] for row in rows)]
    cells = [[row[head] for head in shown] for row in rows]
    right = [*scored, "keys", "size", "new bytes"]
    return table(cells, shown, right=right, width=width)


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
