"""The index rebuilt from the reflog: the changes of each write, one after the other.

Law: after any writes to an `IndexFile` that began empty, `replayed(reflog.entries())` has the
models of the index. Only unknown fields of models and of the document are not in a reflog; unknown
fields of versions are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from ckpt.refs import is_version
from ckpt.registry.events import Event, event_line, joined, read_event
from ckpt.registry.history.changes import REMOVED, THERE, Value, changes
from ckpt.registry.history.reflog import Entry
from ckpt.registry.index import Index, Model
from ckpt.registry.version import Version, number_of, read_version, version_line

_Lines = dict[tuple[str, int], Version]
_Values = dict[tuple[str, str], Value]  # by kind and name


def write_entry(
    before: Index,
    after: Index,
    what: str,
    *,
    time: str,
    parent: str | None = None,
    undoes: str | None = None,
    elsewhere: bool = False,
) -> Entry:
    """The entry of a write from `before`, whose `write_id` is the parent, to `after`."""
    changed = [
        model for name, model in after.models.items() if model is not before.models.get(name)
    ]
    olds = {
        model.name: before.models.get(model.name) or Model(name=model.name) for model in changed
    }
    return Entry(
        write_id=after.write_id,
        parent=before.write_id if parent is None else parent,
        time=time,
        what=what,
        changes=tuple(changes(before, after)),
        undoes=undoes,
        versions={
            version.ref: version_line(version)
            for model in changed
            for version in _new(olds[model.name], model)
        },
        next_numbers={model.name: model.next_number for model in changed},
        # An index from elsewhere may be of another branch; what it lacks was not deleted here.
        gone=()
        if elsewhere
        else tuple(name for model in changed for name in _gone(olds[model.name], model)),
        serial=after.serial,
        elsewhere=elsewhere,
        events={
            model.name: [*map(event_line, _added(() if elsewhere else olds[model.name].log, model))]
            for model in changed
            if model.log or elsewhere
        },
    )


def _added(known: tuple[Event, ...], model: Model) -> list[Event]:
    """The events of a model that are not among the known ones."""
    # Most are the very same object, a faster check than equality.
    same = {*map(id, known)}
    return [event for event in model.log if id(event) not in same and event not in known]


def _new(before: Model, after: Model) -> list[Version]:
    """Versions whose line is new or has changed."""
    old = {version.number: version for version in before.every_version()}
    # Most are the very same object, a faster check than equality.
    others = [
        version for version in after.every_version() if version is not old.get(version.number)
    ]
    return [version for version in others if version != old.get(version.number)]


def _gone(before: Model, after: Model) -> Iterator[str]:
    """The manifests of versions that gc deleted."""
    for version in before.every_version():
        if version.number not in after.versions and version.number not in after.removed:
            yield from version.manifests


def happened(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that led to the last one, oldest first.

    The other writes were interrupted, or an older index was restored after them. If the parent of
    an entry is unknown, the entry above it counts as its parent.
    """
    places = {entry.write_id: place for place, entry in enumerate(entries)}
    found: list[Entry] = []
    place = len(entries) - 1
    while place >= 0:
        found.append(entries[place])
        if not entries[place].parent:
            break
        place = min(places.get(entries[place].parent, place), place - 1)
    return found[::-1]


def replayed(entries: Sequence[Entry]) -> Index:
    """The index after these entries; its `serial` is the highest of all of them."""
    lines: _Lines = {}
    values: dict[str, _Values] = {}
    next_numbers: dict[str, int] = {}
    events: dict[str, tuple[Event, ...]] = {}
    done = happened(entries)
    for entry in done:
        for ref, line in entry.versions.items():
            model, _, label = ref.rpartition(":")
            with suppress(ValueError, TypeError, AttributeError):
                number = number_of(label)
                lines[model, number] = read_version(model, number, line)
        for change in entry.changes:
            values.setdefault(change.model, {})[change.kind, change.name] = change.after
        next_numbers |= entry.next_numbers
        for name, lines_ in entry.events.items():
            events[name] = joined(() if entry.elsewhere else events.get(name, ()), _events(lines_))
    return Index(
        serial=max((entry.serial for entry in entries), default=0),
        write_id=done[-1].write_id if done else "",
        models={
            name: replace(
                _model(name, lines, values[name], next_numbers.get(name, 1)),
                log=events.get(name, ()),
            )
            for name in values
        },
    )


def _events(lines: object) -> Iterator[Event]:
    """The readable events of an entry."""
    for line in lines if isinstance(lines, list) else ():
        with suppress(ValueError):
            yield read_event(line)


def _model(
    name: str, lines: Mapping[tuple[str, int], Version], values: _Values, next_number: int
) -> Model:
    known = {number: version for (model, number), version in lines.items() if model == name}
    versions = {number: known[number] for number in _in_state(values, THERE, known)}
    aliases = {
        key: _number(value)
        for (kind, key), value in values.items()
        if kind == "alias" and _number(value) in versions
    }
    tags = {
        key: _numbers(value, versions) for (kind, key), value in values.items() if kind == "tag"
    }
    return Model(
        name=name,
        next_number=max(next_number, *(number + 1 for number in known), 1),
        aliases=aliases,
        protected=frozenset(key for key in aliases if values.get(("protected", key))),
        tags={key: numbers for key, numbers in tags.items() if numbers},
        versions=versions,
        removed={number: known[number] for number in _in_state(values, REMOVED, known)},
    )


def _in_state(values: _Values, state: str, known: Iterable[int]) -> list[int]:
    """The numbers of versions in a state whose lines are known."""
    return [number for number in sorted(known) if values.get(("version", f"v{number}")) == state]


def _numbers(value: Value, versions: Mapping[int, Version]) -> tuple[int, ...]:
    labels = value if isinstance(value, tuple) else ()
    return tuple(number for number in map(_number, labels) if number in versions)


def _number(label: object) -> int:
    """The number of a version's label; 0, which no version has, for anything else."""
    return number_of(label) if isinstance(label, str) and is_version(label) else 0
