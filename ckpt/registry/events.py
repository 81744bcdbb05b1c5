"""The shared history of a model: what was done to its aliases and versions, by whom and why.

Values only. An event never changes and refers to a version by its manifest, since a merge may
renumber it. Laws: `joined` is commutative, associative and idempotent, so two branches that merge
in any way have the same history; notes, metrics and signatures are never left out.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, NotRequired, TypedDict, cast

from ckpt.io.documents.typed_json import Digest, Form, Time, expect
from ckpt.io.who import By
from ckpt.refs import is_name, is_version

MOST_CHANGES = 1000  # of a model that are kept; what is in `KEPT` does not count
WORDS = ("note", "metric")  # which a copy in another registry has too
KEPT = (*WORDS, "sign")


class Origin(TypedDict):
    """Where a copied version comes from: the identity of the registry, and its names there."""

    registry: str
    version: str
    manifest: Digest


class EventLine(TypedDict):
    """The fields of an event in the document; `Event` describes them."""

    at: Time
    did: str
    by: By
    name: NotRequired[Annotated[str, Form("a name", is_name)]]
    version: NotRequired[Annotated[str, Form("a version like v3", is_version)]]
    manifest: NotRequired[Digest]
    before: NotRequired[Annotated[str, Form("a version like v3", is_version)]]
    text: NotRequired[str]
    metrics: NotRequired[dict[str, float]]
    origin: NotRequired[Origin]
    bundle: NotRequired[dict[str, Any]]  # `ckpt.signing.bundles` checks it


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change, note or measurement; a draft without `at` and `by` until it is written.

    Attributes:
        at: When, UTC, ISO 8601 to the microsecond.
        did: ``alias``, ``unalias``, ``protect``, ``unprotect``, ``tag``, ``untag``, ``rm``,
            ``restore``, ``copy``, ``note``, ``metric`` or ``sign``; a newer ckpt may know more.
        by: Who did it.
        name: The alias or tag.
        version: The label that the version had then.
        manifest: The version's manifest.
        before: The label of the version that the alias pointed to before.
        text: Why, or the note.
        metrics: The values measured.
        origin: Where a copied version comes from.
        bundle: The signature of the version.
    """

    did: str
    at: str = ""
    by: By | None = None
    name: str = ""
    version: str = ""
    manifest: str = ""
    before: str = ""
    text: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    origin: Origin | None = None
    bundle: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)


def joined(*histories: Iterable[Event]) -> tuple[Event, ...]:
    """The events of several histories, each once, ordered by time.

    Of changes, the newest `MOST_CHANGES` are kept.
    """
    known = {_text(event): event for history in histories for event in history}
    ordered = sorted(known.items(), key=lambda pair: (datetime.fromisoformat(pair[1].at), pair[0]))
    events = [event for _, event in ordered]
    left = sum(event.did not in KEPT for event in events) - MOST_CHANGES
    kept = []
    for event in events:
        if event.did in KEPT or left <= 0:
            kept.append(event)
        else:
            left -= 1
    return tuple(kept)


def about(history: Iterable[Event], manifests: Iterable[str]) -> tuple[Event, ...]:
    """The events of the version that has these manifests."""
    names = {*manifests}
    return tuple(event for event in history if event.manifest in names)


def event_line(event: Event) -> dict[str, Any]:
    """The fields of an event in the document; empty ones are omitted."""
    fields = {name: getattr(event, name) for name in EventLine.__annotations__}
    return {**{name: value for name, value in fields.items() if value}, **event.unknown}


def read_event(line: object, *, name: str = "") -> Event:
    """The event of a line of the document.

    Raises:
        ValueError: A field is missing or has another type.
    """
    expect(line, EventLine, name=name)
    fields = dict(cast("dict[str, Any]", line))
    known = {name: fields.pop(name) for name in EventLine.__annotations__ if name in fields}
    return Event(**known, unknown=fields)


def _text(event: Event) -> str:
    return json.dumps(event_line(event), sort_keys=True)
