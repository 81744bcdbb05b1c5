"""Two indexes that grew out of one, joined.

Values only. Laws: no version of either side is lost, but what the other removed or `gc` made it
forget; ours keep their numbers; of a side that did not change, the other is the result; merging the
result with theirs again changes nothing. What both sides changed in two ways stays as ours has it,
and is a conflict.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ckpt.registry.index import Index, Model, Version

_Value = TypeVar("_Value")
_THERE, _REMOVED, _FORGOTTEN = "there", "removed", "forgotten"


@dataclass(frozen=True, slots=True)
class Renumbered:
    """A version of theirs that has another number now.

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
    """What both sides changed in two ways; ours stands in the result.

    Attributes:
        what: ``net@prod``, or a field that this ckpt does not know.
        ours: In words; likewise the others, in the numbers of the result.
        command: What to type to have theirs; None where only an editor helps.
    """

    what: str
    ours: str
    theirs: str
    base: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Merged:
    """The joined index.

    Attributes:
        index: It is valid, whatever the conflicts.
        renumbered: Versions of theirs with other numbers.
        kept: Versions that one side removed, and that stay since an alias points to them.
        conflicts: What a person has to decide.
    """

    index: Index
    renumbered: tuple[Renumbered, ...]
    kept: tuple[str, ...]
    conflicts: tuple[Conflict, ...]


def merged(base: Index, ours: Index, theirs: Index) -> Merged:
    """Join two indexes.

    Args:
        base: What both came from; an empty one if there was none.
        ours: Wins where there is no telling.
        theirs: The other.
    """
    sides = [
        _Sides(*(side.models.get(name) or Model(name=name) for side in (base, ours, theirs)))
        for name in sorted({*ours.models, *theirs.models})
    ]
    models = [each.model() for each in sides]
    unknown, conflicts = _fields("registry.json", base.unknown, ours.unknown, theirs.unknown)
    writes = f"{ours.write_id} {theirs.write_id}".encode()
    return Merged(
        Index(
            serial=max(ours.serial, theirs.serial) + 1,
            write_id=hashlib.sha256(writes).hexdigest()[:16],
            models={model.name: model for model in models},
            unknown=unknown,
        ),
        tuple(each for side in sides for each in side.renumbered()),
        tuple(each for side in sides for each in side.kept()),
        (*conflicts, *(each for side in sides for each in side.conflicts())),
    )


class _Sides:
    """One model in the three indexes, and the numbers that its versions get in the result.

    Ours keep theirs, so a number of the result is one of ours, or that of a version of theirs.
    """

    def __init__(self, base: Model, ours: Model, theirs: Model) -> None:
        self.base, self.ours, self.theirs = base, ours, theirs
        self.name = ours.name
        self.places = _places(base, ours, theirs)  # number in theirs -> number in the result
        self.mine, self.old = _every(ours), _every(base)
        self.others = {self.places[number]: each for number, each in _every(theirs).items()}
        # number in base -> number in the result, and back
        self.old_places = _old_places(self.old, {**self.others, **self.mine})
        self.origins = {place: number for number, place in self.old_places.items()}
        self.aliases = dict(self._aliases())
        self.pointed = set(self._pointed())

    def model(self) -> Model:
        """The model of the result."""
        lines = {n: self._line(n) for n in sorted({*self.mine, *self.others})}
        versions = {n: line for n, line in lines.items() if self._stands(n) == _THERE}
        removed = {n: line for n, line in lines.items() if self._stands(n) == _REMOVED}
        aliases = {name: n for name, (n, _) in self.aliases.items() if n is not None}
        unknown, _ = _fields(self.name, *(each.unknown for each in self._all()))
        highest = max((number + 1 for number in lines), default=1)
        return Model(
            name=self.name,
            next_number=max(highest, *(each.next_number for each in self._all())),
            aliases=aliases,
            protected=frozenset(name for name in aliases if self._is_protected(name)),
            tags={name: numbers for name, numbers in self._tags(versions) if numbers},
            versions=versions,
            removed=removed,
            unknown=unknown,
        )

    def renumbered(self) -> Iterator[Renumbered]:
        """What has another number than in theirs."""
        for number, place in self.places.items():
            if number != place:
                yield Renumbered(f"{self.name}:v{number}", f"v{place}", place in self.mine)

    def kept(self) -> Iterator[str]:
        """What stays for an alias alone, or since one may be moved to it."""
        for number in sorted(self.pointed):
            if self._merged_state(number) != _THERE:
                yield f"{self.name}:v{number}"

    def conflicts(self) -> Iterator[Conflict]:
        """What a person has to decide, about this model."""
        for name, (_, is_conflict) in sorted(self.aliases.items()):
            if is_conflict:
                yield self._alias_conflict(name)
        yield from _fields(self.name, *(each.unknown for each in self._all()))[1]
        for number in sorted(self.mine.keys() & self.others.keys()):
            yield from self._unknown(number)[1]

    def _all(self) -> tuple[Model, Model, Model]:
        return self.base, self.ours, self.theirs

    def _aliases(self) -> Iterator[tuple[str, tuple[int | None, bool]]]:
        for name in sorted({*self.ours.aliases, *self.theirs.aliases}):
            yield name, _three_way(*self._pointers(name))

    def _pointed(self) -> Iterator[int]:
        """What aliases point to, and what those would that a person has to decide on."""
        for name, (number, is_conflict) in self.aliases.items():
            pointers = self._pointers(name)[1:] if is_conflict else (number,)
            yield from (each for each in pointers if each)

    def _pointers(self, name: str) -> tuple[int | None, int | None, int | None]:
        """Where an alias points in base, ours and theirs, in numbers of the result."""
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
        # Of two that differ, one is as it was: there can be no conflict.
        base, ours, theirs = (name in each.protected for each in self._all())
        return _three_way(base, ours, theirs)[0]

    def _tags(self, versions: Mapping[int, Version]) -> Iterator[tuple[str, tuple[int, ...]]]:
        for name in sorted({*self.ours.tags, *self.theirs.tags}):
            ours = set(self.ours.tags.get(name, ()))
            theirs = {self.places[number] for number in self.theirs.tags.get(name, ())}
            base = {self.old_places[number] for number in self.base.tags.get(name, ())}
            standing = (ours & theirs) | (ours - base) | (theirs - base)
            yield name, tuple(sorted(standing & versions.keys()))

    def _stands(self, number: int) -> str | None:
        """Whether a version is there or removed, or the result knows nothing of it any more."""
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
        ours, theirs = self.mine.get(number), self.others.get(number)
        if ours and theirs:
            also = {*ours.also, *theirs.manifests} - {ours.manifest}
            line = replace(
                ours,
                also=tuple(sorted(also)),
                renumbered=ours.renumbered or theirs.renumbered,
                removed=ours.removed or theirs.removed,
                unknown=self._unknown(number)[0],
            )
        elif ours:
            line = ours
        else:
            assert theirs is not None  # or there would be no such number
            was = theirs.renumbered if theirs.number == number else theirs.label
            line = replace(theirs, number=number, renumbered=was)
        return replace(line, removed="") if self._stands(number) == _THERE else line

    def _unknown(self, number: int) -> tuple[dict[str, Any], list[Conflict]]:
        old = self.old.get(self.origins.get(number, 0))
        base = {} if old is None else old.unknown
        ref = f"{self.name}:v{number}"
        return _fields(ref, base, self.mine[number].unknown, self.others[number].unknown)


def _every(model: Model) -> dict[int, Version]:
    """All versions, those that are there first."""
    return {**dict(sorted(model.versions.items())), **dict(sorted(model.removed.items()))}


def _places(base: Model, ours: Model, theirs: Model) -> dict[int, int]:
    """The number in the result of each version of theirs.

    The same bytes are the same version: under the same number, else under that of ours. Other
    bytes keep their number if ours has not given it out; else they get the next one. What one side
    forgot is no version that the other could have anew.
    """
    mine, left, old = _every(ours), _every(theirs), _every(base)
    places = {n: n for n, each in left.items() if n in mine and mine[n].content == each.content}
    free = {n: each for n, each in mine.items() if n not in places and not _forgot(theirs, n, old)}
    moved = []
    for number in (each for each in left if each not in places):
        same = (n for n, each in free.items() if each.content == left[number].content)
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
    """Whether `gc` has made a model forget a version that base knows."""
    known = number in model.versions or number in model.removed
    return number in old and not known and number < model.next_number


def _old_places(old: Mapping[int, Version], found: Mapping[int, Version]) -> dict[int, int]:
    """The number in the result of each version of base; 0, which none has, if it is not there."""
    by_content = {each.content: number for number, each in found.items()}
    return {
        number: number
        if number in found and found[number].content == each.content
        else by_content.get(each.content, 0)
        for number, each in old.items()
    }


def _state(model: Model, version: Version | None, origin: int) -> str | None:
    """What a side has of a version, whose number in base is `origin`, 0 if base had none."""
    if version is None:
        return _FORGOTTEN if origin < model.next_number else None
    return _THERE if version.number in model.versions else _REMOVED


def _label(number: int | None) -> str:
    return f"v{number}" if number else "none"


def _three_way(base: _Value, ours: _Value, theirs: _Value) -> tuple[_Value, bool]:
    """What one side made of `base`; ours if both made something else of it, which is a conflict."""
    if ours == theirs or theirs == base:
        return ours, False
    return (theirs, False) if ours == base else (ours, True)


def _fields(
    what: str, base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Conflict]]:
    """Fields that this ckpt does not know, joined one by one."""
    found: dict[str, Any] = {}
    conflicts = []
    for name in sorted({*ours, *theirs}):
        before, mine, other = (side.get(name) for side in (base, ours, theirs))
        value, is_conflict = _three_way(before, mine, other)
        if value is not None:
            found[name] = value
        if is_conflict:
            said = [str(each) for each in (mine, other, before)]
            conflicts.append(Conflict(f"field {name!r} of {what}", *said))
    return found, conflicts
