"""Aliases, as text and as JSON."""

from collections.abc import Sequence
from typing import Any

from ckpt.ops.alias import Alias
from ckpt.show.look.fields import fields
from ckpt.show.look.terminal import table


def aliases_text(aliases: Sequence[Alias]) -> str:
    """A table, one alias a line."""
    rows = [
        [alias.ref, alias.version or "", "protected" if alias.protected else ""]
        for alias in aliases
    ]
    headers = ["alias", "version", ""]
    if not any(alias.protected for alias in aliases):
        rows, headers = [row[:2] for row in rows], headers[:2]
    return table(rows, headers)


def alias_text(alias: Alias) -> str:
    """An alias after a change."""
    if alias.version is None:
        return f"deleted {alias.ref}, which pointed to {alias.before}"
    protected = ", protected" if alias.protected else ""
    if alias.before in (None, alias.version):
        return f"{alias.ref} points to {alias.version}{protected}"
    return f"{alias.ref} points to {alias.version} (before: {alias.before}){protected}"


def alias_data(alias: Alias) -> dict[str, Any]:
    """The same for JSON."""
    return fields(alias, "alias=name", "model", "version", "before", "protected")


def aliases_data(aliases: Sequence[Alias]) -> list[dict[str, Any]]:
    """Aliases for JSON."""
    return list(map(alias_data, aliases))
