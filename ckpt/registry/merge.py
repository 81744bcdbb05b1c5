"""The merge of two indexes that have a common ancestor.

Values only. Laws: no version of either side is lost, except versions that the other side removed
or that its `gc` deleted; ours keep their numbers; if one side did not change, the other is the
result; merging the result with theirs again changes nothing. A field that both sides changed
differently stays as it is in ours, and is a conflict.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar

from ckpt.registry.index import Index, Model, Version

_Value = TypeVar("_Value")
_THERE, _REMOVED, _FORGOTTEN = "there", "removed", "forgotten"


@dataclass(frozen=True, slots=True)
class Renumbered:
    """A version of theirs that got another number.

    Attributes:
        before: Its ref in theirs, ``net:v3``.
        after: Its label in the result, ``v4``.
        is_twin: Whether ours had the same bytes under that number already.
    """

    before: str
    after: str
    is_twin: bool


@dataclass(frozen=True, slots=True)
class Conflict:
    """An alias or field that both sides changed differently; the result has ours.

    Attributes:
        what: ``net@prod``, or a field that this ckpt does not know.
        ours: The value in words, in the numbers of the result; likewise theirs and base.
        command: The command that takes theirs; None if only an editor helps.
    """

    what: str
    ours: str
    theirs: str
    base: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Merged:
    """The merged index.

    Attributes:
        index: The result, valid even if there are conflicts.
        renumbered: Versions of theirs with other numbers.
        kept: Versions that one side removed, kept since an alias points to them.
        conflicts: Left for a person to decide.
    """

    index: Index
    renumbered: tuple[Renumbered, ...]
    kept: tuple[str, ...]
    conflicts: tuple[Conflict, ...]


def merged(base: Index, ours: Index, theirs: Index) -> Merged:
    """Merge two indexes.

    Args:
        base: Their common ancestor; an empty index if there was none.
        ours: Wins conflicts.
        theirs: The other side.
    """
    sides = [
        _Sides(*(side.models.get(name) or Model(name=name) for side in (base, ours, theirs)))
        for name in sorted({*ours.models, *theirs.models})
    ]
    models = [side.model() for side in sides]
    if ours.id:  # both sides made the registry, or gave an old one its identity
        theirs = theirs.with_id(ours.id)
    unknown, conflicts = _fields("registry.json", base.unknown, ours.unknown, theirs.unknown)
    writes = f"{ours.write_id} {theirs.write_id}".encode()
    return Merged(
        Index(
            serial=max(ours.serial, theirs.serial) + 1,
            write_id=hashlib.sha256(writes).hexdigest()[:16],
            models={model.name: model for model in models},
            unknown=unknown,
        ),
        tuple(chain.from_iterable(side.renumbered() for side in sides)),
        tuple(chain.from_iterable(side.kept() for side in sides)),
        (*conflicts, *chain.from_iterable(side.conflicts() for side in sides)),
    )


class _Sides:
    """One model in the three indexes, and the numbers of its versions in the result.

    Ours keep their numbers; only versions of theirs are renumbered.
    """

    def __init__(self, base: Model, ours: Model, theirs: Model) -> None:
        self.base, self.ours, self.theirs = base, ours, theirs
        self.name = ours.name
        self.places = _places(base, ours, theirs)  # number in theirs -> number in the result
        self.mine, self.old = _every(ours), _every(base)
        self.others = {self.places[number]: version for number, version in _every(theirs).items()}
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
        unknown, _ = _fields(self.name, *(side.unknown for side in self._all()))
        highest = max((number + 1 for number in lines), default=1)
        return Model(
            name=self.name,
            next_number=max(highest, *(side.next_number for side in self._all())),
            aliases=aliases,
            protected=frozenset(name for name in aliases if self._is_protected(name)),
            tags={name: numbers for name, numbers in self._tags(versions) if numbers},
            versions=versions,
            removed=removed,
            unknown=unknown,
        )

    def renumbered(self) -> Iterator[Renumbered]:
        """Versions whose number differs from theirs."""
        for number, place in self.places.items():
            if number != place:
                yield Renumbered(f"{self.name}:v{number}", f"v{place}", place in self.mine)

    def kept(self) -> Iterator[str]:
        """Versions kept only because an alias points to them, or may after a conflict."""
        for number in sorted(self.pointed):
            if self._merged_state(number) != _THERE:
                yield f"{self.name}:v{number}"

    def conflicts(self) -> Iterator[Conflict]:
        """The conflicts of this model."""
        for name, (_, is_conflict) in sorted(self.aliases.items()):
            if is_conflict:
                yield self._alias_conflict(name)
        yield from _fields(self.name, *(side.unknown for side in self._all()))[1]
        for number in sorted(self.mine.keys() & self.others.keys()):
            yield from self._unknown(number)[1]

    def _all(self) -> tuple[Model, Model, Model]:
        return self.base, self.ours, self.theirs

    def _aliases(self) -> Iterator[tuple[str, tuple[int | None, bool]]]:
        for name in sorted({*self.ours.aliases, *self.theirs.aliases}):
            yield name, _three_way(*self._pointers(name))

    def _pointed(self) -> Iterator[int]:
        """The targets of all aliases; of an alias in conflict, both targets."""
        for name, (number, is_conflict) in self.aliases.items():
            pointers = self._pointers(name)[1:] if is_conflict else (number,)
            yield from filter(None, pointers)

    def _pointers(self, name: str) -> tuple[int | None, int | None, int | None]:
        """The target of an alias in base, ours and theirs, in numbers of the result."""
        before, other = self.base.aliases.get(name), self.theirs.aliases.get(name)
        return (
            None if before is None else self.old_places.get(before, 0),
            self.ours.aliases.get(name),
            None if other is None else self.places[other],
        )

    def _alias_conflict(self, name: str) -> Conflict:
        base, ours, theirs = map(_label, self._pointers(name))
        ref = f"{self.name}@{name}"
        move = f"-d {ref}" if theirs == _label(None) else f"{ref} {theirs}"
        return Conflict(ref, ours, theirs, base, f"ckpt alias {move} --expect {ours}")

    def _is_protected(self, name: str) -> bool:
        # If two booleans differ, one of them equals base: a conflict is impossible.
        base, ours, theirs = (name in side.protected for side in self._all())
        return _three_way(base, ours, theirs)[0]

    def _tags(self, versions: Mapping[int, Version]) -> Iterator[tuple[str, tuple[int, ...]]]:
        for name in sorted({*self.ours.tags, *self.theirs.tags}):
            ours = set(self.ours.tags.get(name, ()))
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
        state, is_conflict = _three_way(base, ours, theirs)
        if is_conflict:
            return _THERE if _THERE in (ours, theirs) else _FORGOTTEN
        return state

    def _line(self, number: int) -> Version:
        if number not in self.mine:
            line = self._line_of_theirs(number)
        elif number not in self.others:
            line = self.mine[number]
        else:
            ours, theirs = self.mine[number], self.others[number]
            line = replace(
                ours,
                also=tuple(sorted({*ours.also, *theirs.manifests} - {ours.manifest})),
                renumbered=ours.renumbered or theirs.renumbered,
                removed=ours.removed or theirs.removed,
                unknown=self._unknown(number)[0],
            )
        return replace(line, removed="") if self._state_of(number) == _THERE else line

    def _line_of_theirs(self, number: int) -> Version:
        theirs = self.others[number]
        old_label = theirs.renumbered if theirs.number == number else theirs.label
        return replace(theirs, number=number, renumbered=old_label)

    def _unknown(self, number: int) -> tuple[dict[str, Any], list[Conflict]]:
        old = self.old.get(self.origins.get(number, 0))
        base = {} if old is None else old.unknown
        ref = f"{self.name}:v{number}"
        return _fields(ref, base, self.mine[number].unknown, self.others[number].unknown)


def _every(model: Model) -> dict[int, Version]:
    """All versions by number, removed ones last."""
    return {**dict(sorted(model.versions.items())), **dict(sorted(model.removed.items()))}


def _places(base: Model, ours: Model, theirs: Model) -> dict[int, int]:
    """The number in the result of each version of theirs.

    The same bytes are the same version: under the same number, else under the number of ours. Other
    versions keep their number if ours has not used it, else they get the next free one. A version
    that the `gc` of one side deleted is not a new version of the other.
    """
    mine, left, old = _every(ours), _every(theirs), _every(base)
    places = {
        n: n for n, version in left.items() if n in mine and mine[n].content == version.content
    }
    free = {
        n: version for n, version in mine.items() if n not in places and not _forgot(theirs, n, old)
    }
    moved = []
    for number in (version for version in left if version not in places):
        same = (n for n, version in free.items() if version.content == left[number].content)
        if _forgot(ours, number, old):
            places[number] = number
        elif (twin := next(same, None)) is not None:
            places[number] = twin
            del free[twin]
        elif number not in mine and number >= ours.next_number:
            places[number] = number
        else:
            moved.append(number)
    highest = max(base.next_number, ours.next_number, theirs.next_number)
    return places | {number: highest + place for place, number in enumerate(sorted(moved))}


def _forgot(model: Model, number: int, old: Mapping[int, Version]) -> bool:
    """Whether `gc` has deleted a version of base from a model."""
    known = number in model.versions or number in model.removed
    return number in old and not known and number < model.next_number


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


def _label(number: int | None) -> str:
    return f"v{number}" if number else "none"


def _three_way(base: _Value, ours: _Value, theirs: _Value) -> tuple[_Value, bool]:
    """The changed value of two; ours, and a conflict, if both have changed `base` differently."""
    if ours == theirs or theirs == base:
        return ours, False
    return (theirs, False) if ours == base else (ours, True)


def _fields(
    what: str, base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Conflict]]:
    """Unknown fields, merged one by one."""
    found: dict[str, Any] = {}
    conflicts = []
    for name in sorted({*ours, *theirs}):
        before, mine, other = (side.get(name) for side in (base, ours, theirs))
        value, is_conflict = _three_way(before, mine, other)
        if value is not None:
            found[name] = value
        if is_conflict:
            conflicts.append(
                Conflict(f"field {name!r} of {what}", *map(str, (mine, other, before)))
            )
    return found, conflicts
