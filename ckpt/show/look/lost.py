"""Versions that only git's history has."""

from collections.abc import Sequence
from typing import Any

from ckpt.io import digest
from ckpt.registry.needs.lost import Lost
from ckpt.show.look.fields import fields
from ckpt.show.look.words import printable

SHOWN = 20  # versions; --json has all of them


def lost_lines(found: Sequence[Lost]) -> list[str]:
    """A line for each, and the command that adds it."""
    if not found:
        return []
    lines = [
        f"  {lost.version.ref}  {digest.short(lost.version.manifest)}  {lost.version.made_by}"
        for lost in found[:SHOWN]
    ]
    more = [f"  and {len(found) - SHOWN:,} more"] if len(found) > SHOWN else []
    return [
        "in git's history, but in no version here (of another branch, or lost in a merge):",
        *map(printable, lines),
        *more,
        "to add one:  ckpt fsck --recover DIGEST",
    ]


def lost_data(found: Sequence[Lost]) -> list[dict[str, Any]]:
    """The same for JSON."""
    names = ("version=version.ref", "manifest=version.manifest", "found_in")
    return [fields(lost, *names) for lost in found]
