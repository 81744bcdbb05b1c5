"""The merge of two indexes that have a common ancestor.

Values only. Laws: no version of either side is lost, except versions that the other side removed
or that its `gc` deleted; if one side removed a version and the other restored it, the later of the
two holds; a published number keeps its version, and of two unpublished versions the
one created first keeps it, whichever side is ours; if one side did not change, the other is the
result; merging the result with theirs again changes nothing; the history of a model has the events
of both sides. A field that both sides changed
differently is a conflict, and so is a number that was published with two meanings.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any, TypeVar

from ckpt.registry.events import joined
from ckpt.registry.index import Index, Model
from ckpt.registry.numbers import every_version, numbered, placed
from ckpt.registry.version import Version

_Value = TypeVar("_Value")
_THERE, _REMOVED, _FORGOTTEN = "there", "removed", "forgotten"


@dataclass(frozen=True, slots=True)
class Renumbered:
    """A version of one side that got another number.

    Attributes:
        side: ``ours`` or ``theirs``.
        before: Its ref there, ``net:v3``.
        after: Its label in the result, ``v4``.
        is_twin: Whether the other side had the same bytes under that number already.
    """

    side: str
    before: str
    after: str
    is_twin: bool


@dataclass(frozen=True, slots=True)
class Conflict:
    """An alias or field that both sides changed differently, or a number published twice.

    Attributes:
        what: ``net@prod``, ``net:v3``, or a field that this ckpt does not know.
        ours: The value in words, in the numbers of the result; likewise theirs and base.
    """

    what: str
    ours: str
    theirs: str
    base: str


@dataclass(frozen=True, slots=True)
class Merged:
    """The merged index.

    Attributes:
        index: The result; a conflict is decided as asked for.
        renumbered: Versions with other numbers than on their side.
        kept: Versions that one side removed, kept since an alias points to them.
        settled: Versions that one side removed and the other restored, each with what holds.
        conflicts: Left for a person to decide.
    """

    index: Index
    renumbered: tuple[Renumbered, ...]
    kept: tuple[str, ...]
    settled: tuple[tuple[str, str], ...]
    conflicts: tuple[Conflict, ...]


def merged(
    base: Index,
    ours: Index,
    theirs: Index,
    published: Sequence[Iterable[Index]] = (),
    *,
    take_theirs: bool = False,
) -> Merged:
    """Merge two indexes.

    Args:
        base: Their common ancestor; an empty index if there was none.
        ours: The one side.
        theirs: The other side.
        published: Groups of indexes that others have; the numbers of an earlier group hold.
        take_theirs: Whether theirs, not ours, wins conflicts.
    """
    groups = [tuple(group) for group in published]
    sides = [
        _Sides(
            tuple(side.models.get(name) or Model(name=name) for side in (base, ours, theirs)),
            [[index.models[name] for index in group if name in index.models] for group in groups],
            take_theirs=take_theirs,
        )
        for name in sorted({*ours.models, *theirs.models})
    ]
    models = [side.model() for side in sides]
    unknown, conflicts = _fields(
        "registry.json", base.unknown, ours.unknown, theirs.unknown, take_theirs=take_theirs
    )
    writes = f"{ours.write_id} {theirs.write_id}".encode()
    return Merged(
        Index(
            serial=max(ours.serial, theirs.serial) + 1,
            write_id=hashlib.sha256(writes).hexdigest()[:16],
            id=ours.id or theirs.id,
            models={model.name: model for model in models},
            unknown=unknown,
        ),
        tuple(chain.from_iterable(side.renumbered() for side in sides)),
        tuple(chain.from_iterable(side.kept() for side in sides)),
        tuple(chain.from_iterable(side.settled() for side in sides)),
        (*conflicts, *chain.from_iterable(side.conflicts() for side in sides)),
    )


class _Sides:
    """One model in the three indexes, and the numbers of its versions in the result."""

    def __init__(
        self,
        models: tuple[Model, ...],
        published: Sequence[Sequence[Model]],
        *,
        take_theirs: bool,
    ) -> None:
        self.base, self.ours, self.theirs = base, ours, theirs = models
        self.name, self.take_theirs = ours.name, take_theirs
        self.old = every_version(base)
        self.published = {
            line.manifest
            for model in chain.from_iterable(published)
            for line in model.every_version()
        }
        numbers = numbered(base, ours, theirs, published, take_theirs=take_theirs)
        self.twice_published = numbers.twice_published
        # number on a side -> number in the result
        self.our_places, self.places = numbers.ours, numbers.theirs
        self.mine = {self.our_places[number]: each for number, each in every_version(ours).items()}
        self.others = {self.places[number]: each for number, each in every_version(theirs).items()}
        # number in base -> number in the result, and back
        self.old_places = _old_places(self.old, {**self.others, **self.mine})
        self.origins = {place: number for number, place in self.old_places.items()}
        self.aliases = dict(self._aliases())
        self.pointed = set(self._pointed())

    def model(self) -> Model:
        """The model of the result."""
        lines = {n: self._line(n) for n in sorted({*self.mine, *self.others})}
        versions = {n: line for n, line in lines.items() if self._state_of(n) == _THERE}
        removed = {n: line for n, line in lines.items() if self._state_of(n) == _REMOVED}
        aliases = {name: n for name, (n, _) in self.aliases.items() if n is not None}
        unknown, _ = self._fields(self.name, *(side.unknown for side in self._all()))
        highest = max((number + 1 for number in lines), default=1)
        return Model(
            name=self.name,
            next_number=max(highest, *(side.next_number for side in self._all())),
            aliases=aliases,
            protected=frozenset(name for name in aliases if self._is_protected(name)),
            tags={name: numbers for name, numbers in self._tags(versions) if numbers},
            versions=versions,
            removed=removed,
            log=joined(self.ours.log, self.theirs.log),
            unknown=unknown,
        )

    def renumbered(self) -> Iterator[Renumbered]:
        """Versions whose number differs from that of their side."""
        for side, places, other in (
            ("ours", self.our_places, self.others),
            ("theirs", self.places, self.mine),
        ):
            for number, place in places.items():
                if number != place:
                    yield Renumbered(side, f"{self.name}:v{number}", f"v{place}", place in other)

    def kept(self) -> Iterator[str]:
        """Versions kept only because an alias points to them, or may after a conflict."""
        for number in sorted(self.pointed):
            if self._merged_state(number) != _THERE:
                yield f"{self.name}:v{number}"

    def settled(self) -> Iterator[tuple[str, str]]:
        """Versions that one side removed and the other restored, with ``there`` or ``removed``."""
        for number in sorted(self.mine.keys() & self.others.keys()):
            if state := self._later(number):
                yield f"{self.name}:v{number}", state

    def conflicts(self) -> Iterator[Conflict]:
        """The conflicts of this model."""
        for name, (_, is_conflict) in sorted(self.aliases.items()):
            if is_conflict:
                base, ours, theirs = map(_label, self._pointers(name))
                yield Conflict(f"{self.name}@{name}", ours, theirs, base)
        yield from self._fields(self.name, *(side.unknown for side in self._all()))[1]
        for number in self.twice_published:
            ours, theirs = (
                every_version(side)[number].content[:15] for side in (self.ours, self.theirs)
            )
            yield Conflict(f"{self.name}:v{number}, published with both", ours, theirs, "none")
        for number in sorted(self.mine.keys() & self.others.keys()):
            yield from self._unknown(number)[1]

    def _all(self) -> tuple[Model, Model, Model]:
        return self.base, self.ours, self.theirs

    def _aliases(self) -> Iterator[tuple[str, tuple[int | None, bool]]]:
        for name in sorted({*self.ours.aliases, *self.theirs.aliases}):
            yield name, _three_way(*self._pointers(name), take_theirs=self.take_theirs)

    def _pointed(self) -> Iterator[int]:
        """The targets of all aliases; of an alias in conflict, both targets."""
        for name, (number, is_conflict) in self.aliases.items():
            pointers = self._pointers(name)[1:] if is_conflict else (number,)
            yield from filter(None, pointers)

    def _pointers(self, name: str) -> tuple[int | None, int | None, int | None]:
        """The target of an alias in base, ours and theirs, in numbers of the result."""
        base, ours, theirs = (side.aliases.get(name, 0) for side in self._all())
        before = self.old_places.get(base, 0) if base else None
        return before, self.our_places.get(ours), self.places.get(theirs)

    def _is_protected(self, name: str) -> bool:
        # If two booleans differ, one of them equals base: a conflict is impossible.
        base, ours, theirs = (name in side.protected for side in self._all())
        return _three_way(base, ours, theirs)[0]

    def _tags(self, versions: Mapping[int, Version]) -> Iterator[tuple[str, tuple[int, ...]]]:
        for name in sorted({*self.ours.tags, *self.theirs.tags}):
            ours = {self.our_places[number] for number in self.ours.tags.get(name, ())}
            theirs = {self.places[number] for number in self.theirs.tags.get(name, ())}
            base = {self.old_places[number] for number in self.base.tags.get(name, ())}
            tagged = (ours & theirs) | (ours - base) | (theirs - base)
            yield name, tuple(sorted(tagged & versions.keys()))

    def _state_of(self, number: int) -> str | None:
        """The state of a version in the result."""
        return _THERE if number in self.pointed else self._merged_state(number)

    def _merged_state(self, number: int) -> str | None:
        origin = self.origins.get(number, 0)
        base = _state(self.base, self.old.get(origin), origin)
        ours = _state(self.ours, self.mine.get(number), origin)
        theirs = _state(self.theirs, self.others.get(number), origin)
        if ours is None or theirs is None:  # one side never had it
            return ours or theirs
        if later := self._later(number):
            return later
        state, is_conflict = _three_way(base, ours, theirs)
        if is_conflict:
            return _THERE if _THERE in (ours, theirs) else _FORGOTTEN
        return state

    def _later(self, number: int) -> str | None:
        """The later one of a removal and a restore of different sides; None without both."""
        if number not in self.mine or number not in self.others:
            return None
        old = self.old.get(self.origins.get(number, 0))
        ours, theirs = self.mine[number], self.others[number]
        removed, restored = (ours, theirs) if ours.removed else (theirs, ours)
        if restored.removed or not removed.removed or not restored.restored:
            return None
        if old is not None and (old.removed, old.restored) in (
            (removed.removed, removed.restored),
            (restored.removed, restored.restored),
        ):
            return None  # one side alone has changed it
        return _REMOVED if _time(removed.removed) > _time(restored.restored) else _THERE

    def _line(self, number: int) -> Version:
        if number not in self.mine:
            line = placed(self.others[number], number)
        elif number not in self.others:
            line = placed(self.mine[number], number)
        else:
            first, second = self.mine[number], self.others[number]
            if {first.manifest, second.manifest} & self.published == {second.manifest}:
                first, second = second, first
            first, second = placed(first, number), placed(second, number)
            old = self.old.get(self.origins.get(number, 0))
            removed, _ = _three_way(old.removed if old else "", first.removed, second.removed)
            restored, by_both = _three_way(
                old.restored if old else "", first.restored, second.restored
            )
            if by_both:
                restored = max(first.restored, second.restored)
            line = replace(
                first,
                also=tuple(sorted({*first.also, *second.manifests} - {first.manifest})),
                renumbered=first.renumbered or second.renumbered,
                removed=removed or first.removed or second.removed,
                restored=restored,
                unknown=self._unknown(number)[0],
            )
        return replace(line, removed="") if self._state_of(number) == _THERE else line

    def _fields(
        self, what: str, *sides: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[Conflict]]:
        base, ours, theirs = sides
        return _fields(what, base, ours, theirs, take_theirs=self.take_theirs)

    def _unknown(self, number: int) -> tuple[dict[str, Any], list[Conflict]]:
        old = self.old.get(self.origins.get(number, 0))
        base = {} if old is None else old.unknown
        ref = f"{self.name}:v{number}"
        return self._fields(ref, base, self.mine[number].unknown, self.others[number].unknown)


def _old_places(old: Mapping[int, Version], found: Mapping[int, Version]) -> dict[int, int]:
    """The number in the result of each version of base; 0, which none has, if it is gone."""
    by_content = {version.content: number for number, version in found.items()}
    return {
        number: number
        if number in found and found[number].content == version.content
        else by_content.get(version.content, 0)
        for number, version in old.items()
    }


def _state(model: Model, version: Version | None, origin: int) -> str | None:
    """The state of a version on one side; `origin` is its number in base, 0 if it is not there."""
    if version is None:
        return _FORGOTTEN if origin < model.next_number else None
    return _THERE if version.number in model.versions else _REMOVED


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _label(number: int | None) -> str:
    return f"v{number}" if number else "none"


def _three_way(
    base: _Value, ours: _Value, theirs: _Value, *, take_theirs: bool = False
) -> tuple[_Value, bool]:
    """The changed value of two; one of them, and a conflict, if both have changed `base`."""
    if ours == theirs or theirs == base:
        return ours, False
    return (theirs if take_theirs or ours == base else ours), ours != base


def _fields(
    what: str,
    base: Mapping[str, Any],
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    *,
    take_theirs: bool,
) -> tuple[dict[str, Any], list[Conflict]]:
    """Unknown fields, merged one by one."""
    found: dict[str, Any] = {}
    conflicts = []
    for name in sorted({*ours, *theirs}):
        before, mine, other = (side.get(name) for side in (base, ours, theirs))
        value, is_conflict = _three_way(before, mine, other, take_theirs=take_theirs)
        if value is not None:
            found[name] = value
        if is_conflict:
            conflicts.append(
                Conflict(f"field {name!r} of {what}", *map(str, (mine, other, before)))
            )
    return found, conflicts
