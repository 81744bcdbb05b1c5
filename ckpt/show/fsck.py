"""The check of an index, and an index that was rebuilt."""

from typing import Any

from ckpt.io import digest
from ckpt.ops.fsck import FINE, NONE, Checked, Rebuilding, Recovered
from ckpt.registry.index import Model
from ckpt.registry.needs.needed import Need
from ckpt.registry.version import Version
from ckpt.show.look.fields import fields
from ckpt.show.look.lost import lost_data, lost_lines
from ckpt.show.look.words import count, printable
from ckpt.show.ls import versions_data

SHOWN = 20  # versions; --json has all of them


def checked_text(checked: Checked) -> str:
    """The verdict, and the commands that help."""
    if checked.kind == NONE:
        return "no registry here or above; to create one:  ckpt register FILE"
    if checked.kind == FINE and checked.index is not None:
        models = checked.index.present.values()
        versions = count(sum(len(model.versions) for model in models), "version")
        verdict = f"registry.json is fine: {count(len(models), 'model')}, {versions}"
        return "\n".join([verdict, *lost_lines(checked.lost), *_logged_lines(checked.logged)])
    return "\n".join(
        [printable(checked.message or ""), *map(printable, (checked.hint or "").splitlines())]
    )


def checked_data(checked: Checked) -> dict[str, Any]:
    """The same for JSON."""
    data = fields(checked, "path", "state=kind", "line", "message", "hint")
    logged = [{"manifest": need.manifest, "until": _day(need)} for need in checked.logged]
    return {**data, "lost": lost_data(checked.lost), "reflog": logged}


def _logged_lines(needs: tuple[Need, ...]) -> list[str]:
    """A line for each version that only the reflog has, and the command that brings it back."""
    if not needs:
        return []
    more = [f"  and {len(needs) - SHOWN:,} more"] if len(needs) > SHOWN else []
    return [
        "in the reflog, but in no version here (registry.json was replaced by an older one):",
        *(f"  {digest.short(need.manifest)}  kept until {_day(need)}" for need in needs[:SHOWN]),
        *more,
        "to bring one back:  ckpt restore DIGEST",
    ]


def _day(need: Need) -> str | None:
    return need.until.date().isoformat() if need.until else None


def recovered_text(recovered: Recovered) -> str:
    """The version that is in the index again, or the one of the same bytes."""
    version = recovered.version
    if not recovered.new:
        return f"recovered as {version.ref}, which has the same bytes"
    was = f", which was {printable(version.renumbered)}" if version.renumbered else ""
    return f"recovered {version.ref}{was}"


def recovered_data(recovered: Recovered) -> dict[str, Any]:
    """The same for JSON."""
    return fields(recovered.version, "model", "version=label", "manifest", "renumbered")


def rebuilding_text(rebuilding: Rebuilding) -> str:
    """Each model, then the new, unreadable and damaged versions."""
    result = rebuilding.result
    models = sorted(result.index.models.items())
    lines = [_model_text(model) for _, model in models] or ["no versions"]
    lines += _some_versions("found only in manifests, with new numbers:", result.added)
    lines += _some_versions("with unreadable manifests (ckpt verify --repair FROM):", result.unread)
    lines += [f"not read: {printable(text)}" for text in rebuilding.damages]
    if rebuilding.written:
        lines.append(f"wrote {printable(str(rebuilding.path))}; to check its objects:  ckpt verify")
    if rebuilding.kept:
        lines.append(f"the damaged file is kept as {printable(str(rebuilding.kept))}")
    return "\n".join(lines)


def _model_text(model: Model) -> str:
    parts = [count(len(model.versions), "version")]
    if model.removed:
        parts.append(f"{len(model.removed):,} removed")
    for names, noun in ((model.aliases, "alias"), (model.tags, "tag")):
        if names:
            parts.append(f"{noun} {', '.join(sorted(map(printable, names)))}")
    return f"{printable(model.name)}  {' · '.join(parts)}"


def _some_versions(head: str, versions: tuple[Version, ...]) -> list[str]:
    if not versions:
        return []
    more = [f"  and {len(versions) - SHOWN:,} more"] if len(versions) > SHOWN else []
    shown = (f"  {v.ref}  {printable(v.made_by)}  {v.created}".rstrip() for v in versions[:SHOWN])
    return [head, *shown, *more]


def rebuilding_data(rebuilding: Rebuilding) -> dict[str, Any]:
    """The same for JSON."""
    result = rebuilding.result
    models = result.index.models.values()
    present = [version for model in models for version in model.versions.values()]
    return {
        **fields(rebuilding, "path", "written", "kept"),
        "versions": versions_data(present, result.index),
        "removed": [version.ref for model in models for version in model.removed.values()],
        "added": [version.ref for version in result.added],
        "unread": [version.ref for version in result.unread],
        "damages": rebuilding.damages,
    }
