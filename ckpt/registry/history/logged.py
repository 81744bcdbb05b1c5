"""The events of one write to the index, as its author leaves them in the history of each model.

Law: whoever reads the history of an alias knows every version that it pointed to, whatever command
moved it: the events come from the difference of the two indexes, not from the command.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import MAXYEAR, UTC, datetime, timedelta

from ckpt.io.who import By
from ckpt.registry.events import Event, joined
from ckpt.registry.index import Index, Model

_TICK = timedelta(microseconds=1)


def logged(before: Index, after: Index, *, by: By, text: str, now: datetime) -> Index:
    """The index `after` a write, with its events.

    Args:
        before: The index before.
        after: The index after, whose models may have drafts of notes and metrics.
        by: Who wrote.
        text: Why the aliases, tags and removals changed.
        now: The time. An event of a model is never older than those that its author knew, so
            the newest value is the one that was written last even if a clock goes wrong.
    """
    for name, model in after.models.items():
        old = before.models.get(name) or Model(name=name)
        if model is old:
            continue
        drafts = [*(event for event in model.log if not event.at), *_happened(old, model, text)]
        if drafts:
            known = [event for event in model.log if event.at]
            last = datetime.fromisoformat(known[-1].at) if known else now
            start = max(now, last + _TICK) if last.year < MAXYEAR else now
            stamped = _stamped(drafts, by, start)
            after = after.with_model(replace(model, log=joined(known, stamped)))
    return after


def _stamped(drafts: list[Event], by: By, start: datetime) -> Iterator[Event]:
    for place, draft in enumerate(drafts):
        at = (start + place * _TICK).astimezone(UTC).isoformat(timespec="microseconds")
        yield replace(draft, at=at, by=by)


def _happened(old: Model, new: Model, text: str) -> Iterator[Event]:
    """The changes of aliases, tags and removals."""

    def event(did: str, number: int | None, name: str = "", before: int | None = None) -> Event:
        version = new.versions.get(number or 0) or new.removed.get(number or 0)
        return Event(
            did=did,
            name=name,
            version=version.label if version else "",
            manifest=version.manifest if version else "",
            before=f"v{before}" if before else "",
            text=text,
        )

    for number in sorted(new.removed.keys() - old.removed.keys()):
        yield event("rm", number)
    for number in sorted(new.versions.keys() - old.versions.keys()):
        if number in old.removed or new.versions[number].restored:  # or the list had lost it
            yield event("restore", number)
    for name in sorted({*old.aliases, *new.aliases}):
        before, now = old.aliases.get(name), new.aliases.get(name)
        if before != now:
            yield event("alias" if now else "unalias", now, name, before)
        if now and (name in old.protected) != (name in new.protected):
            yield event("protect" if name in new.protected else "unprotect", now, name, now)
    for name in sorted({*old.tags, *new.tags}):
        then, tagged = {*old.tags.get(name, ())}, {*new.tags.get(name, ())}
        # A version that was removed has lost its tags with that.
        gone = (number for number in sorted(then - tagged) if number in new.versions)
        yield from (event("untag", number, name) for number in gone)
        yield from (event("tag", number, name) for number in sorted(tagged - then))
