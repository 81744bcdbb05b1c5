"""Who wrote something, and when, in a form for people."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ckpt.registry.events import KEPT, Event
from ckpt.show.look.fields import fields
from ckpt.show.look.words import metrics, printable

_ALWAYS = (*KEPT, "copy", "rm", "restore")
_DID = {"rm": "removed", "restore": "restored"}


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


def words_lines(history: Iterable[Event]) -> Iterator[str]:
    """``note      2026-11-24 by Ann: …``, oldest first.

    Of each note, measurement, signature, copy, removal and restoration, and of a tag that came or
    went for a reason.
    """
    for event in history:
        if event.did in _ALWAYS or (event.did in ("tag", "untag") and event.text):
            origin = ""
            if event.origin:
                origin = f"{event.origin['version']} of registry {event.origin['registry'][:8]}"
            parts = [event.name, metrics(event.metrics), event.text, origin, signature_text(event)]
            said = printable(", ".join(filter(None, parts)))
            author = printable(event.by["author"]) if event.by else "somebody"
            did = _DID.get(event.did, event.did)
            yield f"{did:<8}  {event.at[:10]} by {author}" + (f": {said}" if said else "")


def signature_text(event: Event) -> str:
    """``key 3fa9c1d2, not checked here``; empty if the event is not a signature."""
    if not event.bundle:
        return ""
    from ckpt.signing.bundles import key_of  # few versions have one

    return f"key {key_of(event.bundle)}, not checked here"


def history_data(history: Iterable[Event]) -> list[dict[str, Any]]:
    """The events of a version for JSON."""
    return [
        {
            **fields(event, "did", "at", "by"),
            "name": event.name or None,
            **fields(event, "message=text", "metrics"),
            **({"origin": event.origin} if event.origin else {}),
            **({"bundle": event.bundle} if event.bundle else {}),
        }
        for event in history
    ]
