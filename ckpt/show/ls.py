"""Lists of versions: `ckpt ls`."""

from collections.abc import Sequence
from typing import Any

from ckpt.registry.index import Index, Version
from ckpt.show.look.terminal import table
from ckpt.show.look.words import metric, printable, size


def versions_text(versions: Sequence[Version], index: Index, *, width: int | None) -> str:
    """A table, one version a line."""
    scored = sorted({name for version in versions for name in version.metrics})
    headers = ["model", "version", "aliases", "tags", "made by", *map(printable, scored)]
    headers += ["keys", "size", "new bytes", "when", "message"]
    rows = [_row(version, index, scored) for version in versions]
    empty = [
        header for header in ("aliases", "tags", "message") if not any(r[header] for r in rows)
    ]
    shown = [header for header in headers if header not in empty]
    cells = [[row[header] for header in shown] for row in rows]
    right = [*map(printable, scored), "keys", "size", "new bytes"]
    return table(cells, shown, right=right, width=width)


def _row(version: Version, index: Index, scored: Sequence[str]) -> dict[str, str]:
    scores = {
        printable(name): metric(name, version.metrics[name]) if name in version.metrics else ""
        for name in scored
    }
    model = index.models[version.model]
    return {
        "model": version.model,
        "version": version.label,
        "aliases": ", ".join(model.aliases_of(version)),
        "tags": ", ".join(model.tags_of(version)),
        "made by": printable(version.made_by),
        **scores,
        "keys": f"{version.keys:,}",
        "size": size(version.size),
        "new bytes": size(version.new_bytes),
        "when": version.created[:10],
        "message": printable(version.message),
    }


def version_data(
    version: Version, aliases: Sequence[str] = (), tags: Sequence[str] = ()
) -> dict[str, Any]:
    """One version for JSON."""
    return {
        "model": version.model,
        "version": version.label,
        "aliases": list(aliases),
        "tags": list(tags),
        "made_by": version.made_by,
        "metrics": dict(version.metrics),
        "keys": version.keys,
        "size": version.size,
        "new_bytes": version.new_bytes,
        "created": version.created,
        "message": version.message,
        "manifest": version.manifest,
        "file": version.file,
        **({"renumbered": version.renumbered} if version.renumbered else {}),
    }


def versions_data(versions: Sequence[Version], index: Index) -> list[dict[str, Any]]:
    """Versions for JSON."""
    found = [(version, index.models[version.model]) for version in versions]
    return [
        version_data(version, model.aliases_of(version), model.tags_of(version))
        for version, model in found
    ]
