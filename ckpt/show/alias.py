"""Aliases, as text and as JSON."""

from collections.abc import Sequence
from typing import Any

from ckpt.ops.alias import Alias
from ckpt.show.look.terminal import table


def aliases_text(aliases: Sequence[Alias]) -> str:
    """A table, one alias a line."""
    rows = [
        [each.ref, each.version or "", "protected" if each.protected else ""] for each in aliases
    ]
    headers = ["alias", "version", ""]
    if not any(each.protected for each in aliases):
        rows, headers = [row[:2] for row in rows], headers[:2]
    return table(rows, headers)


def alias_text(alias: Alias) -> str:
    """What became of one."""
    if alias.version is None:
        return f"{alias.ref} is gone; it pointed to {alias.before}"
    protected = ", protected" if alias.protected else ""
    if alias.before in (None, alias.version):
        return f"{alias.ref} points to {alias.version}{protected}"
    return f"{alias.ref} points to {alias.version}, before to {alias.before}{protected}"


def aliases_data(aliases: Sequence[Alias]) -> list[dict[str, Any]]:
    """Aliases for JSON."""
    return [
        {
            "alias": each.name,
            "model": each.model,
            "version": each.version,
            "before": each.before,
            "protected": each.protected,
        }
        for each in aliases
    ]
