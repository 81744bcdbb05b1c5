"""Who wrote something, and when, in a form for people."""

from collections.abc import Mapping
from typing import Any

from ckpt.show.look.words import printable


def by_text(by: Mapping[str, Any] | None, *, with_host: bool = False) -> str:
    """``Ann <ann@example.org>, commit 3fa9c1d2, dirty``; empty if unknown."""
    if not by:
        return ""
    host = f" on {by['host']}" if with_host and by.get("host") else ""
    words = [f"{by['author']}{host}"]
    if commit := by.get("commit"):
        words.append(f"commit {commit[:8]}")
    if by.get("dirty"):
        words.append("dirty")
    return printable(", ".join(words))


def day_and_time(at: str) -> str:
    """``2026-11-24 10:00:05`` of a time in ISO 8601."""
    return at[:19].replace("T", " ")
